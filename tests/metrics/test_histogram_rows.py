"""Rows of histograms: the same from memory and from a file, whole and in order."""

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.metrics import pixel_histogram
from pipeline.metrics.pixel_histogram import HistogramRows

PAIRS = np.random.default_rng(0).integers(0, 2**31, (7, 2, 1001), dtype=np.int32)


def rows_of(pairs: npt.NDArray[np.int32]) -> HistogramRows:
    rows = HistogramRows()
    rows.append(pairs[:1])
    rows.append(pairs[1:])
    return rows


def read(rows: HistogramRows) -> npt.NDArray[np.int32]:
    return np.concatenate(list(rows.blocks()))


@pytest.mark.parametrize("kept", [0, 20_000, 2**26])
def test_rows_come_back_in_their_order_from_memory_and_from_a_file(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_histogram, "KEPT_BYTES", kept)
    monkeypatch.setattr(pixel_histogram, "ROWS_AT_ONCE", 3)
    rows = rows_of(PAIRS)
    assert len(rows) == 7
    assert [len(block) for block in rows.blocks()] == [3, 3, 1]
    assert np.array_equal(read(rows), PAIRS)


def test_more_can_be_added_after_reading_even_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_histogram, "ROWS_AT_ONCE", 3)
    rows = rows_of(PAIRS[:4])
    next(rows.blocks())
    rows.append(PAIRS[4:])
    assert np.array_equal(read(rows), PAIRS)


def test_no_rows_are_no_blocks() -> None:
    assert not list(HistogramRows().blocks())


@pytest.mark.parametrize("row", [np.zeros((1, 2, 1000), dtype=np.int32), np.zeros((1, 2, 1001), dtype=np.int64)])
def test_other_shapes_and_types_are_refused(row: npt.NDArray[np.int32]) -> None:
    with pytest.raises(ValueError, match=r"int32 \(n, 2, 1001\)"):
        HistogramRows().append(row)
