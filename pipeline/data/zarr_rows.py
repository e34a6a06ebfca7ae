"""Rows of a Zarr array, read one by one: by tensorstore, since zarr's own way to one row takes seven times as long.

Checksums are checked: that of a shard's index, and that of each row.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import tensorstore
from numpy.typing import NDArray

# Whoever wants several rows at once has threads; more of them here would only wait for each other.
ALONE: Final = {
    "data_copy_concurrency": {"limit": 1},
    "file_io_concurrency": {"limit": 1},
    "cache_pool": {"total_bytes_limit": 10**6},  # for the indices of shards, a kilobyte each
}


class ZarrRows:
    """The rows of an array of Zarr format 3; may be read in any thread.

    Args:
        folder: of the array.
        complete: every row was written, so that a missing one is damage and no row of fill values.

    Attributes:
        shape: of the array.
        dtype: of its values, as NumPy calls it.

    Raises:
        ValueError: there is no such array, or its description is damaged.
    """

    def __init__(self, folder: Path, *, complete: bool = False) -> None:
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(folder)},
            "recheck_cached_data": "open",  # an index is read once
            "fill_missing_data_reads": not complete,
        }
        context = tensorstore.Context(ALONE)
        self._array: Any = tensorstore.open(spec, open=True, read=True, context=context).result()
        self.shape: tuple[int, ...] = tuple(self._array.shape)
        self.dtype: str = self._array.dtype.name

    def read(self, row: int) -> NDArray[Any]:
        """Return a copy of a row; one that was never written, or whose file is gone, holds fill values, as in Zarr.

        Raises:
            ValueError: its bytes are damaged, or missing where all were written; or the system does not let it be read.
        """
        return self.begin_reading(row)()

    def begin_reading(self, row: int) -> Callable[[], NDArray[Any]]:
        """Return what waits for a row and gives it, as `read` does: rows of several arrays come in less time so."""
        wait: Callable[[], NDArray[Any]] = self._array[row].read().result
        return wait
