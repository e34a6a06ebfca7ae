"""Maps as files: written whole or not at all at the size of their images, and read, whichever method wrote them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import EllipsisType
from typing import Any, Final, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image
from zarr.codecs import ZstdCodec

from pipeline.params.errors import PixelCAMError, named
from pipeline.params.vocabulary import MapFormat
from pipeline.runtime.files import replacing_file, replacing_folder

LEVELS: Final = 65535  # what stands for 1 in 16 bits
STORE: Final = "heatmaps.zarr"
SCALE_ATTRIBUTE: Final = "scale_factor"  # of the CF conventions

Heat = NDArray[np.float32]
WriteMap = Callable[[str, Heat, Mapping[str, Any]], Path]  # image id, map (H, W) in [0, 1], attributes -> where it is


def quantize(heat: Heat) -> NDArray[np.uint16]:
    """Return a map in [0, 1] as uint16, round(65535 p)."""
    return np.rint(heat.astype(np.float64) * LEVELS).astype(np.uint16)


@contextmanager
def writing_maps(
    output: Path, map_format: MapFormat, *, image_ids: Sequence[str], ending: str, attributes: Mapping[str, Any]
) -> Iterator[WriteMap]:
    """Yield a function that writes the map of an image, one call per image.

    Args:
        output: the folder to write to.
        map_format: NumPy and PNG make one file per image. Zarr makes one group for all of them, `heatmaps.zarr`, which
            takes its place when the block ends without an error.
        image_ids: file names of the images, the attribute of that name of the Zarr group and the names of its arrays.
        ending: what follows the image's name without suffix in the name of a file, before the file's own suffix.
        attributes: what the Zarr group says of itself besides; files have no place for it.

    Raises:
        PixelCAMError: an image's name cannot be the name of a Zarr array.
    """
    match map_format:
        case MapFormat.ZARR:
            for image_id in image_ids:
                if image_id.startswith("__"):
                    raise PixelCAMError(f"{named(image_id)}: Zarr keeps names with __ for itself; rename the image")
            with replacing_folder(output / STORE) as temporary:
                group = zarr.open_group(temporary, mode="w", zarr_format=3)
                group.attrs.update({**attributes, "image_ids": list(image_ids)})

                def write_array(image_id: str, heat: Heat, described: Mapping[str, Any]) -> Path:
                    _write_array(group, image_id, heat, described)
                    return output / STORE / image_id

                yield write_array
        case _:

            def write_file(image_id: str, heat: Heat, _: Mapping[str, Any]) -> Path:
                path = output / f"{Path(image_id).stem}{ending}.{map_format}"
                _write_file(path, heat)
                return path

            yield write_file


def _write_file(path: Path, heat: Heat) -> None:
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".png":
            Image.fromarray(quantize(heat)).save(file, format="PNG")
        else:
            np.save(file, heat, allow_pickle=False)


def _write_array(group: zarr.Group, name: str, heat: Heat, attributes: Mapping[str, Any]) -> None:
    array = group.create_array(
        name,
        shape=heat.shape,
        dtype="uint16",
        chunks=heat.shape,
        compressors=ZstdCodec(level=3, checksum=True),
        fill_value=0,
        dimension_names=("y", "x"),
        attributes={**attributes, SCALE_ATTRIBUTE: 1 / LEVELS},
    )
    array[...] = quantize(heat)


MAP_SUFFIXES: Final = (".npy", ".png", ".tif", ".tiff")
PICTURE_MAXIMA: Final = {  # by Pillow's mode: what stands for 1
    "1": 1,
    "L": 255,
    "I;16": 65535,
    "I;16L": 65535,
    "I;16B": 65535,
    "I;16N": 65535,
    "F": 1,
}
ZARR_MARKERS: Final = ("zarr.json", ".zarray", ".zgroup")

Value = TypeVar("Value")


class MapSource(ABC):
    """Maps by the name of their image, without folder and suffix."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names, sorted."""

    @abstractmethod
    def read_exactly(self, name: str) -> NDArray[np.float64]:
        """Return a map, float64 (H, W) in [0, 1], no value rounded; raise a `PixelCAMError` for anything else."""

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a map, float32 (H, W) in [0, 1]; raise a `PixelCAMError` for anything else."""
        return self.read_exactly(name).astype(np.float32)


class MapFolder(MapSource):
    """A folder of maps; raise a `PixelCAMError` if it holds none, or two of one name."""

    def __init__(self, folder: Path) -> None:
        self._files = files_by_stem(folder, suffixes=MAP_SUFFIXES)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(self._files)

    def read_exactly(self, name: str) -> NDArray[np.float64]:
        """Return a map, float64 (H, W) in [0, 1]."""
        path = self._files[name]
        return _checked(_read_numpy(path) if path.suffix.lower() == ".npy" else _read_picture(path), where=str(path))


class MapArray(MapSource):
    """An array (image, y, x) in Zarr; `image_ids`, an attribute of it or of its group, names its rows.

    Raises:
        PixelCAMError: the path is no such array.
    """

    def __init__(self, path: Path) -> None:
        node = _open_zarr(path)
        if not isinstance(node, zarr.Array):
            raise PixelCAMError(
                f"{path}: is a Zarr group whose arrays are not named by its image_ids; name one array of shape "
                f"(image, y, x), such as {path / 'cam'}"
            )
        ids = node.attrs.get("image_ids")
        if ids is None and any((path.parent / marker).exists() for marker in ZARR_MARKERS):
            ids = _open_zarr(path.parent).attrs.get("image_ids")
        if not isinstance(ids, list):
            raise PixelCAMError(f"{path}: nothing says which image each map is of; give it the attribute image_ids")
        if node.ndim != 3 or node.shape[0] != len(ids):
            raise PixelCAMError(f"{path}: expected {len(ids)} maps as (image, y, x), got the shape {node.shape}")
        self._path, self._array = path, node
        self._rows = _by_stem({str(name): row for row, name in enumerate(ids)}.items(), where=path)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(self._rows)

    def read_exactly(self, name: str) -> NDArray[np.float64]:
        """Return a map, float64 (H, W) in [0, 1]."""
        return _read_zarr(self._array, self._rows[name], where=f"{self._path}, {name}")


class MapGroup(MapSource):
    """A Zarr group with an array (y, x) for each image, named as the attribute `image_ids` says: maps of any sizes.

    Raises:
        PixelCAMError: two images differ in folder or suffix alone.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self._path, self._group = path, group
        self._ids = _by_stem({str(name): str(name) for name in _image_ids(group)}.items(), where=path)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(self._ids)

    def read_exactly(self, name: str) -> NDArray[np.float64]:
        """Return a map, float64 (H, W) in [0, 1]."""
        where = f"{self._path}, {name}"
        array = self._group.get(self._ids[name])
        if not isinstance(array, zarr.Array):
            raise PixelCAMError(f"{where}: image_ids names it, but there is no such array; write the maps again")
        return _read_zarr(array, ..., where=where)


def open_maps(path: Path) -> MapSource:
    """Return the maps in a folder of files or in Zarr; raise a `PixelCAMError` if there are none."""
    if not any((path / marker).exists() for marker in ZARR_MARKERS):
        return MapFolder(path)
    node = _open_zarr(path)
    if isinstance(node, zarr.Group):
        ids = _image_ids(node)
        if ids and str(ids[0]) in node:
            return MapGroup(path, node)
    return MapArray(path)


def _image_ids(group: zarr.Group) -> list[Any]:
    ids = group.attrs.get("image_ids")
    return ids if isinstance(ids, list) else []


def _read_zarr(array: "zarr.Array[Any]", selection: int | EllipsisType, *, where: str) -> NDArray[np.float64]:
    """Return a map of an array, float64 (H, W) in [0, 1], after its scale where it has one."""
    try:
        values: NDArray[np.generic] = np.asarray(array[selection])
    except Exception as error:  # codecs raise many kinds on damaged bytes
        raise PixelCAMError(f"{where}: is damaged ({error}); write the maps again") from error
    return _checked(_scaled(values, array.attrs, where=where), where=where)


def _scaled(values: NDArray[np.generic], attributes: Mapping[str, Any], *, where: str) -> NDArray[np.generic]:
    """Return stored numbers as map values: whole numbers may have a scale, the attribute of the CF conventions."""
    scale = attributes.get(SCALE_ATTRIBUTE, 1)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise PixelCAMError(f"{where}: {SCALE_ATTRIBUTE} must be a number, got {scale!r}; mend the attribute")
    return values if scale == 1 or values.dtype.kind not in "fiu" else values.astype(np.float64) * scale


def files_by_stem(folder: Path, *, suffixes: Iterable[str] | None = None) -> dict[str, Path]:
    """Return the files of a folder by their name without suffix, sorted; hidden files and subfolders are left out.

    Raises:
        PixelCAMError: the folder is missing or has no such file, or two files differ in their suffix alone.
    """
    if not folder.is_dir():
        raise PixelCAMError(f"{folder}: is no folder; name the folder that holds the files")
    wanted = None if suffixes is None else tuple(suffixes)
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and (wanted is None or path.suffix.lower() in wanted)
    ]
    if not files:
        kinds = "" if wanted is None else f" ({', '.join(wanted)})"
        raise PixelCAMError(f"{folder}: holds no file{kinds}; name the folder that holds the files themselves")
    return _by_stem(((path.name, path) for path in files), where=folder)


def _by_stem(items: Iterable[tuple[str, Value]], *, where: Path) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, value in items:
        stem = PurePosixPath(name).stem
        if stem in found:
            raise PixelCAMError(f"{where}: two are called '{stem}'; images are matched by name, so rename one")
        found[stem] = value
    return dict(sorted(found.items()))


def _open_zarr(path: Path) -> "zarr.Array[Any] | zarr.Group":
    try:
        return zarr.open(path, mode="r")
    except Exception as error:  # zarr raises errors of many kinds for damaged metadata
        raise PixelCAMError(f"{path}: cannot be opened as Zarr ({error}); restore it") from error


def _read_numpy(path: Path) -> NDArray[np.generic]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise PixelCAMError(
            f"{path}: cannot be read as a NumPy array ({error}); save it again with numpy.save"
        ) from error
    return np.asarray(loaded)


def _read_picture(path: Path) -> NDArray[np.generic]:
    """Return a picture of a map: 8 and 16 bits are brought to [0, 1], floating point stays as it is."""
    try:
        with Image.open(path) as image:
            mode, frames = image.mode, getattr(image, "n_frames", 1)
            values = np.asarray(image).astype(np.float64)
    except Exception as error:  # Pillow's decoders raise errors of many kinds for broken files
        raise PixelCAMError(f"{path}: cannot be read as a picture ({error}); save the map again") from error
    if mode not in PICTURE_MAXIMA or frames != 1:
        raise PixelCAMError(
            f"{path}: expected one channel of 8 or 16 bits, or of floats, got {frames} of mode {mode}; "
            "save the map itself, not its colours"
        )
    return values / PICTURE_MAXIMA[mode]


def _checked(values: NDArray[np.generic], *, where: str) -> NDArray[np.float64]:
    """Return a map as float64; raise a `PixelCAMError` unless it is (H, W), real and in [0, 1]."""
    if values.ndim != 2 or values.size == 0:
        raise PixelCAMError(f"{where}: expected a map of the shape (H, W), got {values.shape}; save one channel")
    if values.dtype.kind not in "fiub":
        raise PixelCAMError(f"{where}: expected numbers, got {values.dtype}; save the map as float32")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # so written, NaN fails too
        raise PixelCAMError(
            f"{where}: map values must lie in [0, 1], got {low} to {high}; "
            "scale all maps alike (8 bits by 255), or each by its lowest and highest value, and say which you did"
        )
    return values.astype(np.float64)
