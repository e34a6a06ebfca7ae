"""Rows of Zarr arrays, against what zarr itself reads, whatever their layout."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ZstdCodec

from pipeline.data.zarr_rows import ZarrRows
from pipeline.runtime.files import is_shortage, system_error


def create(folder: Path, **changes: Any) -> zarr.Array[Any]:  # noqa: ANN401 - any argument
    arguments: dict[str, Any] = {
        "shape": (7, 5, 3),
        "dtype": "float16",
        "chunks": (1, 5, 3),
        "shards": (4, 5, 3),
        "compressors": ZstdCodec(level=3, checksum=True),
        "fill_value": 0.5,
    }
    return zarr.create_array(folder, **(arguments | changes))


def filled(folder: Path, **changes: Any) -> zarr.Array[Any]:  # noqa: ANN401 - any argument
    array = create(folder, **changes)
    array[:] = np.random.default_rng(0).integers(0, 99, array.shape).astype(array.dtype)
    return array


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int64"])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"shards": (1, 5, 3)},
        {"shards": (64, 5, 3)},
        {"shards": None},
        {"shards": None, "chunks": (2, 5, 2)},
        {"compressors": None},
        {"compressors": GzipCodec()},
        {"compressors": BloscCodec()},
        {"serializer": BytesCodec(endian="big")},
    ],
)
def test_rows_are_those_of_zarr(dtype: str, layout: dict[str, Any], tmp_path: Path) -> None:
    array, rows = filled(tmp_path, dtype=dtype, **layout), ZarrRows(tmp_path)
    assert rows.shape == (7, 5, 3)
    assert rows.dtype == dtype
    for index in (6, 0, 3, 4, 3):
        found = rows.read(index)
        assert found.dtype == np.dtype(dtype)
        assert np.array_equal(found, np.asarray(array[index]))
        found += 1  # is a copy that may be written to
    assert np.array_equal(rows.read(3), np.asarray(array[3]))


def test_what_was_never_written_is_filled(tmp_path: Path) -> None:
    create(tmp_path)[0] = np.ones((5, 3))
    rows, complete = ZarrRows(tmp_path), ZarrRows(tmp_path, complete=True)
    for index, value in ((0, 1), (1, 0.5), (5, 0.5)):  # in a shard that exists, and in one that does not
        assert (rows.read(index) == value).all()
        if index == 0:
            assert (complete.read(index) == value).all()
        else:
            with pytest.raises(ValueError, match="is missing"):
                complete.read(index)


@pytest.mark.parametrize("place", [0.0, 0.4, 0.97, 0.999])
def test_a_damaged_byte_is_noticed(place: float, tmp_path: Path) -> None:
    filled(tmp_path, shape=(4, 64, 64), chunks=(1, 64, 64), shards=(4, 64, 64))
    file = tmp_path / "c/0/0/0"
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 4
    file.write_bytes(content)
    rows = ZarrRows(tmp_path)
    with pytest.raises(ValueError, match="c/0/0/0"):
        [rows.read(index) for index in range(4)]


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        ZarrRows(tmp_path)
    (tmp_path / "zarr.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="Invalid JSON"):
        ZarrRows(tmp_path)


def test_what_the_system_refuses_is_no_damage(tmp_path: Path) -> None:
    filled(tmp_path)
    rows = ZarrRows(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        rows.read(0)
    except ValueError as error:
        found = error
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    refused = system_error(found)
    assert refused is not None
    assert refused.strerror == "Too many open files"
    assert is_shortage(found)
