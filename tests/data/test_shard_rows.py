"""Rows read straight from shards, against what zarr reads; other layouts are left to zarr."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, GzipCodec, ZstdCodec

from pipeline.data.shard_rows import ShardRows


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


def rows_of(folder: Path, **changes: Any) -> tuple[zarr.Array[Any], ShardRows | None]:  # noqa: ANN401 - any argument
    array = create(folder, **changes)
    array[:] = np.random.default_rng(0).integers(0, 99, array.shape).astype(array.dtype)
    return array, ShardRows.of(folder, array)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int64"])
@pytest.mark.parametrize("shards", [(4, 5, 3), (1, 5, 3), (64, 5, 3)])
def test_rows_are_those_of_zarr(dtype: str, shards: tuple[int, ...], tmp_path: Path) -> None:
    array, rows = rows_of(tmp_path, dtype=dtype, shards=shards)
    assert rows is not None
    for index in (6, 0, 3, 4, 3):
        found = rows.read(index)
        assert found.dtype == array.dtype
        assert np.array_equal(found, np.asarray(array[index]))
        found += 1  # is a copy that may be written to
    assert np.array_equal(rows.read(3), np.asarray(array[3]))


def test_what_was_never_written_is_filled(tmp_path: Path) -> None:
    array = create(tmp_path)
    array[0] = np.ones((5, 3))
    rows = ShardRows.of(tmp_path, array)
    assert rows is not None
    assert (rows.read(0) == 1).all()
    assert (rows.read(1) == 0.5).all(), "in a shard that exists"
    assert (rows.read(5) == 0.5).all(), "in a shard that does not"
    complete = ShardRows.of(tmp_path, array, complete=True)
    assert complete is not None
    assert (complete.read(0) == 1).all()
    for index in (1, 5):
        with pytest.raises(ValueError, match="missing"):
            complete.read(index)


@pytest.mark.parametrize(("dtype", "fill_value"), [("uint8", 255), ("float16", float("nan"))])
def test_shards_are_written_as_zarr_writes_them(dtype: str, fill_value: float, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 99, (11, 5, 3)).astype(dtype)
    values[1], values[4:8], values[9, 0, 0] = fill_value, fill_value, fill_value  # rows, a whole shard, one number
    for name in ("ours", "zarr"):
        array = create(tmp_path / name, shape=values.shape, dtype=dtype, fill_value=fill_value)
        rows = ShardRows.of(tmp_path / name, array)
        assert rows is not None
        if name == "zarr":
            array[:] = values
        else:
            for shard in range(3):
                rows.write_shard(shard, list(values[4 * shard : 4 * shard + 4]))
    ours, theirs = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("ours", "zarr")
    )
    assert ours == theirs
    assert len(ours) == 1 + 2, "the description and two of three shards"


@pytest.mark.parametrize(
    "changes",
    [
        {"shards": None},
        {"chunks": (2, 5, 3)},
        {"chunks": (1, 5, 1)},
        {"compressors": None},
        {"compressors": GzipCodec()},
        {"compressors": (ZstdCodec(), GzipCodec())},
        {"serializer": BytesCodec(endian="big")},
        {"zarr_format": 2, "shards": None, "compressors": None},
    ],
)
def test_other_layouts_are_left_to_zarr(changes: dict[str, Any], tmp_path: Path) -> None:
    _, rows = rows_of(tmp_path, **changes)
    assert rows is None


@pytest.mark.parametrize("place", [0.0, 0.4, 0.97, 0.999])
def test_a_damaged_byte_is_noticed(place: float, tmp_path: Path) -> None:
    _, rows = rows_of(tmp_path, shape=(4, 64, 64), chunks=(1, 64, 64), shards=(4, 64, 64))
    assert rows is not None
    file = tmp_path / "c/0/0/0"
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 4
    file.write_bytes(content)
    with pytest.raises((RuntimeError, ValueError)):
        [rows.read(index) for index in range(4)]
