"""Read one row of a sharded Zarr array straight from its file, when it is laid out as this project writes them.

Zarr comes to the same bytes by way of an event loop and a chain of codecs, which takes several times as long as reading
and decompressing a row does. Checksums are checked all the same: that of a shard's index here, that of a row by zstd.
"""

from pathlib import Path
from typing import Any, Final, Self

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, Endian, ShardingCodec, ZstdCodec
from zarr.codecs.sharding import ShardingCodecIndexLocation

MISSING: Final = 2**64 - 1  # in place of an offset: a row of fill values
CHECKSUM_BYTES: Final = 4


class ShardRows:
    """The rows of an array with one row per chunk and many per shard; made by `of`.

    Args:
        folder: of the array.
        array: as zarr describes it.
    """

    def __init__(self, folder: Path, array: zarr.Array[Any]) -> None:
        self._folder = folder
        self._shape = array.shape[1:]
        self._dtype = array.dtype.newbyteorder("<")
        self._fill_value = array.fill_value
        self._rows_per_shard = array.shards[0] if array.shards else 1
        self._indices: dict[int, NDArray[np.uint64]] = {}

    @classmethod
    def of(cls, folder: Path, array: zarr.Array[Any]) -> Self | None:
        """Return the rows of an array, or None if it is laid out in another way than this module knows."""
        return cls(folder, array) if _is_known(array) else None

    def read(self, row: int) -> NDArray[Any]:
        """Return a row; one that was never written, or whose file is gone, holds fill values, as in Zarr.

        Raises:
            OSError: the file cannot be read.
            RuntimeError, ValueError: its bytes are damaged.
        """
        shard, within = divmod(row, self._rows_per_shard)
        path = self._folder.joinpath("c", str(shard), *("0" for _ in self._shape))
        try:
            with path.open("rb", buffering=0) as file:
                if shard not in self._indices:
                    self._indices[shard] = _read_index(file, self._rows_per_shard)
                offset, size = (int(value) for value in self._indices[shard][within])
                if offset == MISSING:
                    return self._fill()
                file.seek(offset)
                values = np.frombuffer(Zstd().decode(file.read(size)), dtype=self._dtype).copy()  # writable
        except FileNotFoundError:
            return self._fill()
        return values.reshape(self._shape)

    def _fill(self) -> NDArray[Any]:
        return np.full(self._shape, self._fill_value, dtype=self._dtype)


def _read_index(file: Any, rows: int) -> NDArray[np.uint64]:  # noqa: ANN401 - an unbuffered file
    """Return offset and size of each row, uint64 (rows, 2), from the end of a shard."""
    size = 16 * rows
    file.seek(-size - CHECKSUM_BYTES, 2)
    found = file.read(size + CHECKSUM_BYTES)
    if google_crc32c.value(found[:size]) != int.from_bytes(found[size:], "little"):
        raise ValueError("the checksum of a shard's index does not match")
    return np.frombuffer(found[:size], dtype="<u8").reshape(rows, 2)


def _is_known(array: zarr.Array[Any]) -> bool:
    """Tell whether an array is laid out as `store.write_store` does it."""
    if array.metadata.zarr_format != 3 or array.shards is None:
        return False
    whole_rows = array.chunks == (1, *array.shape[1:]) and array.shards[1:] == array.shape[1:]
    (sharding,) = array.metadata.codecs
    if not whole_rows or not isinstance(sharding, ShardingCodec):
        return False
    inner, index = sharding.codecs, sharding.index_codecs
    as_written = [type(codec) for codec in (*inner, *index)] == [BytesCodec, ZstdCodec, BytesCodec, Crc32cCodec]
    little = all(codec.endian in (None, Endian.little) for codec in (*inner, *index) if isinstance(codec, BytesCodec))
    return as_written and little and sharding.index_location is ShardingCodecIndexLocation.end
