"""Maps as files, at the size of their images: NumPy arrays, 16-bit PNG, or one Zarr group; whole or not at all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image
from zarr.codecs import ZstdCodec

from pipeline.errors import PixelCAMError, named
from pipeline.files import replacing_file, replacing_folder
from pipeline.map_format import MapFormat

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
