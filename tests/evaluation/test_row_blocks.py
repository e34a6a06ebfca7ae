"""Rows come back as they were added, however many at a time."""

import numpy as np
import pytest

from pipeline.evaluation import domain_scores
from pipeline.evaluation.domain_scores import RowBlocks


@pytest.mark.parametrize("sizes", [[3], [4], [5, 2, 1], [1, 0, 9, 4], []])
def test_rows_come_back_in_blocks_of_one_size_but_for_the_last(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain_scores, "ROWS_IN_BLOCK", 4)
    added, rows = np.arange(2 * sum(sizes), dtype=np.float32).reshape(-1, 2), RowBlocks()
    for first, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        rows.append(added[first : first + size])
    found = rows.blocks()
    assert all(len(block) == 4 for block in found[:-1])
    assert all(0 < len(block) <= 4 and block.dtype == np.float32 for block in found)
    assert np.array_equal(np.concatenate([np.empty((0, 2)), *found]), added)
