"""Read and write rows of a sharded Zarr array straight from and to its files, where it is laid out as is usual here.

Zarr comes to the same bytes by way of an event loop and a chain of codecs, which takes several times as long as zstd
and the disk do. Checksums are checked all the same: that of a shard's index here, that of a row by zstd.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, Endian, ShardingCodec, ZstdCodec
from zarr.codecs.sharding import ShardingCodecIndexLocation
from zarr.core.metadata import ArrayV3Metadata

MISSING: Final = 2**64 - 1  # in place of an offset: a row of fill values
CHECKSUM_BYTES: Final = 4


class ShardRows:
    """The rows of an array with one row per chunk and many per shard; made by `of`.

    Args:
        folder: of the array.
        array: as zarr describes it.
        compression: of each row.
        complete: every row was written, so that a missing one is damage.

    Attributes:
        per_shard: number of rows in a shard; the last may have fewer.
    """

    def __init__(self, folder: Path, array: zarr.Array[Any], compression: ZstdCodec, *, complete: bool = False) -> None:
        self._folder = folder
        self._shape = array.shape[1:]
        self._dtype = array.dtype.newbyteorder("<")
        self._fill_value = array.fill_value
        self.per_shard = array.shards[0] if array.shards else 1
        self._complete = complete
        self._codec = Zstd(level=compression.level, checksum=compression.checksum)
        self._indices: dict[int, NDArray[np.uint64]] = {}

    @classmethod
    def of(cls, folder: Path, array: zarr.Array[Any], *, complete: bool = False) -> Self | None:
        """Return the rows of an array, or None if it is laid out in another way than this module knows."""
        compression = _compression_of(array)
        return None if compression is None else cls(folder, array, compression, complete=complete)

    def read(self, row: int) -> NDArray[Any]:
        """Return a row; one that was never written, or whose file is gone, holds fill values, as in Zarr.

        Where all rows were written, that is a `ValueError`.

        Raises:
            OSError: the file cannot be read.
            RuntimeError, ValueError: its bytes are damaged.
        """
        shard, within = divmod(row, self.per_shard)
        try:
            with self._path_of(shard).open("rb", buffering=0) as file:
                if shard not in self._indices:
                    self._indices[shard] = _read_index(file, self.per_shard)
                offset, size = (int(value) for value in self._indices[shard][within])
                if offset == MISSING:
                    return self._fill()
                file.seek(offset)
                values = np.frombuffer(self._codec.decode(file.read(size)), dtype=self._dtype).copy()  # writable
        except FileNotFoundError:
            return self._fill()
        return values.reshape(self._shape)

    def write_shard(self, shard: int, rows: Sequence[NDArray[Any]]) -> None:
        """Write all rows of a shard, as the bytes that zarr writes; rows of nothing but fill values are left out.

        Args:
            shard: its number, from 0.
            rows: of the array's shape and dtype, as many as a shard has, or fewer at the array's end.

        Raises:
            OSError: the file cannot be written.
        """
        index = np.full((self.per_shard, 2), MISSING, dtype="<u8")
        parts: list[bytes] = []
        offset = 0
        for number, row in enumerate(rows):
            if np.array_equal(row, np.broadcast_to(self._fill_value, row.shape), equal_nan=True):
                continue
            parts.append(self._codec.encode(np.ascontiguousarray(row, dtype=self._dtype)))
            index[number] = offset, len(parts[-1])
            offset += len(parts[-1])
        if parts:
            described = index.tobytes()
            checksum = google_crc32c.value(described).to_bytes(CHECKSUM_BYTES, "little")
            path = self._path_of(shard)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join([*parts, described, checksum]))

    def _path_of(self, shard: int) -> Path:
        return self._folder.joinpath("c", str(shard), *("0" for _ in self._shape))

    def _fill(self) -> NDArray[Any]:
        if self._complete:
            raise ValueError("it is missing")
        return np.full(self._shape, self._fill_value, dtype=self._dtype)


def _read_index(file: Any, rows: int) -> NDArray[np.uint64]:  # noqa: ANN401 - an unbuffered file
    """Return offset and size of each row, uint64 (rows, 2), from the end of a shard."""
    size = 16 * rows
    file.seek(-size - CHECKSUM_BYTES, 2)
    found = file.read(size + CHECKSUM_BYTES)
    if google_crc32c.value(found[:size]) != int.from_bytes(found[size:], "little"):
        raise ValueError("the checksum of a shard's index does not match")
    return np.frombuffer(found[:size], dtype="<u8").reshape(rows, 2)


def _compression_of(array: zarr.Array[Any]) -> ZstdCodec | None:
    """Return how the rows of an array are compressed; None if it is laid out otherwise than `write_store` does it."""
    if not isinstance(array.metadata, ArrayV3Metadata) or array.shards is None:
        return None
    whole_rows = array.chunks == (1, *array.shape[1:]) and array.shards[1:] == array.shape[1:]
    (sharding,) = array.metadata.codecs
    if not whole_rows or not isinstance(sharding, ShardingCodec):
        return None
    inner, index = sharding.codecs, sharding.index_codecs
    as_written = [type(codec) for codec in (*inner, *index)] == [BytesCodec, ZstdCodec, BytesCodec, Crc32cCodec]
    little = all(codec.endian in (None, Endian.little) for codec in (*inner, *index) if isinstance(codec, BytesCodec))
    if not (as_written and little and sharding.index_location is ShardingCodecIndexLocation.end):
        return None
    return next(codec for codec in inner if isinstance(codec, ZstdCodec))
