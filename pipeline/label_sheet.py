"""What a pseudo-label store holds, in words and as a contact sheet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from pipeline.files import replacing_file
from pipeline.images import read_image
from pipeline.labels import PIXEL_LABELS
from pipeline.overlays import Picture, contact_sheet, heat_overlay, label_overlay
from pipeline.store import PseudoLabelStore

SHOWN_ATTRIBUTES: Final = (
    "domain",
    "encoder",
    "teacher_sha256",
    "cam_method",
    "cam_layers",
    "cam_scales",
    "cam_flip",
    "foreground_threshold",
    "background_fraction",
    "background_class",
    "schema_version",
)
CELL_SIDE: Final = 192  # pixels


def describe_store(store: PseudoLabelStore) -> Iterator[tuple[str, str]]:
    """Yield names and values: size, provenance, and the share of each label overall and per class."""
    counts, class_idx = store.counts(), store.class_idx()
    yield "images", str(len(store))
    for name in SHOWN_ATTRIBUTES:
        yield name, str(store.attributes.get(name, "not said"))
    selections = {"all": np.ones(len(store), dtype=np.bool_)}
    for index, name in enumerate(store.attributes["classes"]):
        selections[str(name)] = class_idx == index
    for name, selected in selections.items():
        pixels = counts[selected].sum(axis=0)
        shares = dict(zip(PIXEL_LABELS, pixels / max(1, pixels.sum()), strict=True))
        said = ", ".join(f"{label} {share:.1%}" for label, share in shares.items())
        yield f"labels, {name} ({int(selected.sum())} images)", said


def write_label_sheet(store: PseudoLabelStore, output: Path, *, count: int, images: Path | None) -> None:
    """Write a PNG with a row per image: the image if its folder is given, the CAM, and the labels.

    Args:
        store: the store.
        output: PNG file.
        count: number of images, evenly over the store.
        images: the folder that the store's image ids start from; None draws CAM and labels on white.
    """
    rows = np.linspace(0, len(store) - 1, min(count, len(store))).round().astype(int)
    sheet = contact_sheet([_row(store, store.image_ids[row], images) for row in rows], side=CELL_SIDE)
    with replacing_file(output) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


def _row(store: PseudoLabelStore, image_id: str, images: Path | None) -> list[Picture]:
    stored = store.read(image_id)
    heat = stored.cam.astype(np.float32)
    if images is None:
        white = np.full((*stored.labels.shape, 3), 255, dtype=np.uint8)
        return [heat_overlay(white, heat=heat), label_overlay(white, labels=stored.labels)]
    image = read_image(images / image_id)
    return [image, heat_overlay(image, heat=heat), label_overlay(image, labels=stored.labels)]
