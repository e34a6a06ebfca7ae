"""Pseudo-labels for viewers: each training image as OME-Zarr 0.5 with its labels, and its CAM as an image beside it.

The metadata is written with zarr alone, by the specification at https://ngff.openmicroscopy.org/0.5/. The CAM is an
image of its own, not a fourth channel: viewers show three channels of 8 bits as a colour picture, and more as a blend
of lights; and an array has one type, so that the CAM would be rounded to 8 bits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from PIL import Image
from zarr.codecs import ZstdCodec

from pipeline.data.manifest import ManifestRow, PreparedDomain
from pipeline.data.maps import resize_labels, resize_map
from pipeline.data.pixels import read_row
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import BACKGROUND, IGNORE
from pipeline.pseudo_labels.store import REMEDY, PseudoLabelStore
from pipeline.report.overlays import FOREGROUND_COLOUR, label_colour
from pipeline.runtime.console import progress
from pipeline.runtime.files import replacing_folder

VERSION: Final = "0.5"
SIDE: Final = 512  # pixels; smaller levels follow until neither side is longer, and chunks are no larger
LABELS: Final = "pseudo_labels"
BACKGROUND_COLOUR: Final = (0, 114, 178)  # blue: the report's purple, which lies on grey, is lost on stained tissue
OPACITY: Final = 160  # of labels but ignored pixels, of 255
RGB_CHANNELS: Final = (("red", "FF0000", 255), ("green", "00FF00", 255), ("blue", "0000FF", 255))
CAM_CHANNELS: Final = (("CAM", "{:02X}{:02X}{:02X}".format(*FOREGROUND_COLOUR), 1),)

Size = tuple[int, int]  # height and width in pixels


def export_ome(
    store: PseudoLabelStore, output: Path, *, source: PreparedDomain, image_ids: Sequence[str] = ()
) -> tuple[str, ...]:
    """Write `ID.ome.zarr`, image and labels, and `ID.cam.ome.zarr` for each image of a store, at the image's size.

    Args:
        store: is checked before anything is written.
        output: a folder that does not exist yet; appears when all of it is there.
        source: the domain that the store's images come from.
        image_ids: which images; none means all.

    Returns:
        The images that were exported.

    Raises:
        PixelCAMError: the output exists, the store is damaged or knows no such image, or an image is missing from the
            domain, unreadable or another one than was prepared.
    """
    if output.exists():
        raise PixelCAMError(f"{output}: exists already; remove it, or name a folder that does not exist")
    rows = _rows(store, source, image_ids or store.image_ids)
    store.verify()
    with replacing_folder(output) as temporary:
        for row in progress(rows, label="exporting"):
            _export_image(store, row, source, temporary)
    return tuple(row.image for row in rows)


def spread(image_ids: Sequence[str], count: int) -> tuple[str, ...]:
    """Return `count` of the images, evenly over their order with both ends; all where there are fewer."""
    chosen = np.linspace(0, len(image_ids) - 1, min(count, len(image_ids))).round().astype(int)
    return tuple(image_ids[index] for index in chosen)


def _rows(store: PseudoLabelStore, source: PreparedDomain, image_ids: Sequence[str]) -> list[ManifestRow]:
    """Return what the manifest says of images, and refuse a store and a domain that do not belong together."""
    known = {row.image: row for row in source.manifest.rows}
    in_store = set(store.image_ids)
    rows: list[ManifestRow] = []
    for image_id in dict.fromkeys(image_ids):
        if image_id not in in_store:
            raise PixelCAMError(f"{store.path}: holds no image '{image_id}'; its names are like '{store.image_ids[0]}'")
        if image_id not in known:
            raise PixelCAMError(
                f"{store.path}: its image '{image_id}' is not in the manifest of '{source.name}'; "
                f"name the folder that the store was made from, or {REMEDY}"
            )
        rows.append(known[image_id])
    return rows


def _export_image(store: PseudoLabelStore, row: ManifestRow, source: PreparedDomain, folder: Path) -> None:
    image = read_row(source.manifest, row)
    stored = store.read(row.image)
    sizes = _level_sizes((image.shape[0], image.shape[1]))
    about = {name: value for name, value in store.attributes.items() if name != "image_ids"}
    about |= {"image_id": row.image, "class": row.label}

    picture = zarr.open_group(folder / f"{row.image}.ome.zarr", mode="w-", zarr_format=3)
    shrunk = [np.moveaxis(_shrink(image, size), -1, 0) for size in sizes]
    _write_multiscale(picture, shrunk, name=row.image, method="mean", more=_omero(RGB_CHANNELS), about=about)

    labels = picture.create_group("labels", attributes={"ome": {"version": VERSION, "labels": [LABELS]}})
    values = torch.tensor(stored.labels)
    levels = [resize_labels(values, size).numpy() for size in sizes]
    _write_multiscale(labels.create_group(LABELS), levels, name=LABELS, method="nearest", more=_image_label(store))

    beside = zarr.open_group(folder / f"{row.image}.cam.ome.zarr", mode="w-", zarr_format=3)
    cam = torch.from_numpy(stored.cam.astype(np.float32)).unsqueeze(0)
    levels = [resize_map(cam, size).numpy() for size in sizes]
    name = f"{row.image}, CAM"
    _write_multiscale(beside, levels, name=name, method="bilinear", more=_omero(CAM_CHANNELS), about=about)


def _level_sizes(size: Size) -> list[Size]:
    """Return the size itself, and halves of it until neither side is longer than `SIDE`."""
    sizes = [size]
    while max(sizes[-1]) > SIDE:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def _shrink(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BOX))


def _write_multiscale(
    group: zarr.Group,
    levels: Sequence[NDArray[Any]],
    *,
    name: str,
    method: str,
    more: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write an image at several sizes, the largest first, into a group.

    Args:
        group: is empty.
        levels: arrays (c, y, x) or (y, x).
        name: what viewers call it.
        method: how the smaller ones were made.
        more: further OME metadata.
        about: where it comes from, beside the OME metadata.
    """
    axes = [{"name": axis, "type": "channel" if axis == "c" else "space"} for axis in ("c", "y", "x")]
    axes = axes[-levels[0].ndim :]
    datasets = []
    for number, level in enumerate(levels):
        array = group.create_array(
            str(number),
            shape=level.shape,
            dtype=level.dtype,
            chunks=(*level.shape[:-2], *(min(side, SIDE) for side in level.shape[-2:])),
            compressors=ZstdCodec(level=3, checksum=True),
            fill_value=0,
            dimension_names=[axis["name"] for axis in axes],
        )
        array[...] = level
        scale = [whole / part for whole, part in zip(levels[0].shape, level.shape, strict=True)]
        # Pixel centres have whole coordinates, so that the first centre of a smaller level lies between some of them.
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if number > 0:
            steps.append({"type": "translation", "translation": [(factor - 1) / 2 for factor in scale]})
        datasets.append({"path": str(number), "coordinateTransformations": steps})
    multiscale = {"name": name, "type": method, "axes": axes, "datasets": datasets}
    group.attrs.update(
        {"ome": {"version": VERSION, "multiscales": [multiscale], **more}}
        | ({"pixelcam": dict(about)} if about else {})
    )


def _omero(channels: Sequence[tuple[str, str, int]]) -> dict[str, Any]:
    """Return how a viewer shows channels, given as name, colour and highest value."""
    return {
        "omero": {
            "channels": [
                {
                    "label": label,
                    "color": colour,
                    "active": True,
                    "window": {"min": 0, "max": highest, "start": 0, "end": highest},
                }
                for label, colour, highest in channels
            ],
            "rdefs": {"model": "color"},
        }
    }


def _image_label(store: PseudoLabelStore) -> dict[str, Any]:
    """Return what each label means and how it is coloured: ignored pixels are transparent."""
    names = {**dict(enumerate(store.pixel_classes)), IGNORE: "ignore"}
    colours = {value: (*label_colour(value), OPACITY) for value in range(1, len(store.pixel_classes))}
    colours |= {BACKGROUND: (*BACKGROUND_COLOUR, OPACITY), IGNORE: (0, 0, 0, 0)}
    return {
        "image-label": {
            "colors": [{"label-value": value, "rgba": list(colours[value])} for value in names],
            "properties": [{"label-value": value, "name": name} for value, name in names.items()],
            "source": {"image": "../../"},
        }
    }
