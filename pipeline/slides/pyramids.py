"""A slide's heatmap for viewers: as an OME-Zarr 0.5 pyramid that is read back as it was, and as a pyramidal OME-TIFF.

In both the image holds uint8 v for the probability v / 254, and 0 where there is no tissue: viewers draw 255 brightest,
and glass is dark. OME-Zarr says where there is tissue beside it, as the label image `tissue`, so that nothing is lost.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import zarr
from numpy.typing import NDArray
from tifffile import TiffWriter
from zarr.codecs import ZstdCodec

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import is_shortage, replacing_file, replacing_folder
from pipeline.slides.heat import CERTAIN, NOT_LOOKED_AT, Heat

UInt8Map = NDArray[np.uint8]  # (h, w)

VERSION: Final = "0.5"
SIDE: Final = 512  # pixels; smaller levels follow until neither side is longer, and chunks are no larger
TILE: Final = 256  # pixels, of OME-TIFF
TISSUE: Final = "tissue"
CHANNEL: Final = "probability"
HEAT_COLOUR: Final = "FDE725"  # the report's yellow, viridis at 1
TISSUE_COLOUR: Final = (86, 180, 233, 64)  # a veil, lest it hide the slide
ABOUT: Final = "pixelcam"
REMEDY: Final = "map the slide again"


def halve(values: UInt8Map) -> UInt8Map:
    """Return a heatmap of half the size: of each two by two values (h, w) the mean of those that were looked at.

    Args:
        values: uint8 (h, w), as `Heat` holds them.

    Returns:
        uint8 of half the size rounded up, `NOT_LOOKED_AT` where none of the four was looked at.
    """
    height, width = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2)), constant_values=NOT_LOOKED_AT)
    total = np.zeros((even.shape[0] // 2, even.shape[1] // 2), dtype=np.uint16)
    count = np.zeros_like(total)
    for part in (even[::2, ::2], even[::2, 1::2], even[1::2, ::2], even[1::2, 1::2]):
        seen = part != NOT_LOOKED_AT
        total += np.where(seen, part, 0)
        count += seen
    mean = (2 * total + count) // np.maximum(2 * count, 1)  # rounded, halves up
    return np.where(count > 0, mean, NOT_LOOKED_AT).astype(np.uint8)


def write_ome_zarr(path: Path, heat: Heat, *, name: str, attributes: Mapping[str, Any]) -> None:
    """Write a heatmap as OME-Zarr 0.5, whole or not at all; the same one as the same bytes.

    Coordinates are micrometres from the centre of the slide's first pixel, so that a viewer lays it over the slide.

    Args:
        path: a folder, which ends in `.ome.zarr`.
        heat: of a slide.
        name: what viewers call it.
        attributes: what else is said of it, as JSON has it, beside the OME metadata under `pixelcam`.

    Raises:
        PixelCAMError: the system does not let it be written.
    """
    levels = _levels(heat.values)
    channel: dict[str, Any] = {
        "label": CHANNEL,
        "color": HEAT_COLOUR,
        "active": True,
        "window": {"min": 0, "max": CERTAIN, "start": 0, "end": CERTAIN},
    }
    about = {**attributes, "heat": {"stride": float(heat.stride), "mpp": float(heat.mpp), "certain": CERTAIN}}
    with replacing_folder(path) as folder:
        image = zarr.open_group(folder, mode="w", zarr_format=3)
        _write_arrays(image, [_shown(level) for level in levels])
        image.attrs.update(
            {
                "ome": {
                    "version": VERSION,
                    "multiscales": [_multiscale(heat, levels, name=name, method="mean of what was looked at")],
                    "omero": {"channels": [channel], "rdefs": {"model": "color"}},
                },
                ABOUT: about,
            }
        )
        labels = image.create_group("labels", attributes={"ome": {"version": VERSION, "labels": [TISSUE]}})
        tissue = labels.create_group(TISSUE)
        _write_arrays(tissue, [(level != NOT_LOOKED_AT).astype(np.uint8) for level in levels])
        multiscale = _multiscale(heat, levels, name=TISSUE, method="any")
        tissue.attrs.update({"ome": {"version": VERSION, "multiscales": [multiscale], "image-label": _image_label()}})


def read_ome_zarr(path: Path) -> Heat:
    """Return a heatmap as it was when `write_ome_zarr` wrote it.

    Raises:
        PixelCAMError: it is missing, damaged or another OME-Zarr.
    """
    if not path.is_dir():
        raise PixelCAMError(f"{path}: there is no such heatmap; mend the path, or {REMEDY}")
    try:
        image = zarr.open_group(path, mode="r", zarr_format=3)
        about: Any = image.attrs[ABOUT]
        stride, mpp = (float(about["heat"][key]) for key in ("stride", "mpp"))
        values, tissue = (np.asarray(image[place][...]) for place in ("0", f"labels/{TISSUE}/0"))  # type: ignore[index]
    except Exception as error:  # zarr and its codecs raise as many kinds as an array can be damaged
        if is_shortage(error):
            raise
        raise PixelCAMError(f"{path}: is no heatmap that can be read ({error}); {REMEDY}") from error
    if values.ndim != 2 or values.shape != tissue.shape or values.dtype != np.uint8:
        raise PixelCAMError(
            f"{path}: expected an image of uint8 and its tissue in one size, got {values.dtype} {values.shape} and "
            f"{tissue.shape}; {REMEDY}"
        )
    return Heat(np.where(tissue > 0, values, np.uint8(NOT_LOOKED_AT)), stride, mpp)


def write_ome_tiff(path: Path, heat: Heat, *, name: str) -> None:
    """Write a heatmap as pyramidal OME-TIFF, whole or not at all; the same one as the same bytes.

    Tiles are deflated, smaller levels are SubIFDs, and PhysicalSize is in micrometres.

    Args:
        path: a file, which ends in `.ome.tiff`.
        heat: of a slide.
        name: what viewers call it.

    Raises:
        PixelCAMError: the system does not let it be written.
    """
    levels = [_shown(level) for level in _levels(heat.values)]
    told = f"{name} {heat.stride} {heat.mpp} {levels[0].shape} {hashlib.sha256(levels[0].tobytes()).hexdigest()}"
    metadata = {
        "axes": "YX",
        "Name": name,
        "UUID": str(uuid5(NAMESPACE_URL, told)),
        "PhysicalSizeX": heat.pixel_size,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": heat.pixel_size,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": CHANNEL},
    }
    with replacing_file(path) as temporary, TiffWriter(temporary, ome=True) as writer:
        for number, level in enumerate(levels):
            writer.write(
                level,
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=int(number > 0),
                photometric="minisblack",
                tile=(TILE, TILE),
                compression="zlib",
                resolution=(1e4 / heat.pixel_size / 2**number,) * 2,
                resolutionunit="CENTIMETER",
                metadata=metadata if number == 0 else None,
            )


def _levels(values: UInt8Map) -> list[UInt8Map]:
    """Return the heatmap itself, and halves of it until neither side is longer than `SIDE`."""
    levels = [values]
    while max(levels[-1].shape) > SIDE:
        levels.append(halve(levels[-1]))
    return levels


def _shown(level: UInt8Map) -> UInt8Map:
    return np.where(level == NOT_LOOKED_AT, np.uint8(0), level)


def _write_arrays(group: zarr.Group, levels: Sequence[UInt8Map]) -> None:
    for number, level in enumerate(levels):
        array = group.create_array(
            str(number),
            shape=level.shape,
            dtype=level.dtype,
            chunks=tuple(min(side, SIDE) for side in level.shape),
            compressors=ZstdCodec(level=3, checksum=True),
            fill_value=0,
            dimension_names=("y", "x"),
        )
        array[...] = level


def _multiscale(heat: Heat, levels: Sequence[UInt8Map], *, name: str, method: str) -> dict[str, Any]:
    """Return how big the pixels of each level are and where the centre of the first one lies, in micrometres."""
    datasets = []
    for number in range(len(levels)):
        stride = heat.stride * 2**number
        steps = [
            {"type": "scale", "scale": [stride * heat.mpp] * 2},
            {"type": "translation", "translation": [(stride - 1) / 2 * heat.mpp] * 2},
        ]
        datasets.append({"path": str(number), "coordinateTransformations": steps})
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in ("y", "x")]
    return {"name": name, "type": method, "axes": axes, "datasets": datasets}


def _image_label() -> dict[str, Any]:
    named = {0: ("glass", (0, 0, 0, 0)), 1: (TISSUE, TISSUE_COLOUR)}
    return {
        "colors": [{"label-value": value, "rgba": list(colour)} for value, (_, colour) in named.items()],
        "properties": [{"label-value": value, "name": name} for value, (name, _) in named.items()],
        "source": {"image": "../../"},
    }
