"""What a pseudo-label store holds, in words and as a contact sheet."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.choices import ForegroundRule
from pipeline.images import read_image
from pipeline.labels import PIXEL_LABELS
from pipeline.overlays import SHEET_COLOUR, Picture, contact_sheet, heat_overlay, label_overlay, write_picture
from pipeline.store import PseudoLabelStore

SHOWN_ATTRIBUTES: Final = (
    "domain",
    "encoder",
    "teacher_sha256",
    "cam_method",
    "cam_layers",
    "cam_scales",
    "cam_symmetries",
    "precision",
    "background_class",
    "schema_version",
)
CELL_SIDE: Final = 192  # pixels
TEXT_SIZE: Final = 12  # pixels
TEXT_COLOUR: Final = (40, 40, 40)
LEGEND: Final = "CAM (yellow is high), labels (yellow foreground, purple background, the rest ignored)"


def describe_store(store: PseudoLabelStore) -> Iterator[tuple[str, str]]:
    """Yield names and values: size, provenance, and the share of each label overall and per class."""
    counts, class_idx = store.counts(), store.class_idx()
    yield "images", str(len(store))
    for name in SHOWN_ATTRIBUTES:
        value = store.attributes.get(name, "not said")
        yield name, "none" if value is None else str(value)
    yield "rule", describe_rule(store.attributes)
    selections = {"all": np.ones(len(store), dtype=np.bool_)}
    for index, name in enumerate(store.attributes["classes"]):
        selections[str(name)] = class_idx == index
    for name, selected in selections.items():
        pixels = counts[selected].sum(axis=0)
        shares = dict(zip(PIXEL_LABELS, pixels / max(1, pixels.sum()), strict=True))
        said = ", ".join(f"{label} {share:.1%}" for label, share in shares.items())
        yield f"labels, {name} ({int(selected.sum())} images)", said


def describe_rule(attributes: Mapping[str, Any]) -> str:
    """Say how a store's maps were cut into labels, given its attributes; the oldest stores know thresholds alone."""
    match ForegroundRule(attributes.get("foreground_rule", ForegroundRule.THRESHOLD)):
        case ForegroundRule.THRESHOLD:
            foreground = f"where the map is at least {attributes['foreground_threshold']:g}"
        case ForegroundRule.OTSU:
            foreground = "where the map is above Otsu's threshold of the image"
        case ForegroundRule.PERCENTILE:
            foreground = f"the {_percent(attributes['foreground_fraction'])} of each image where the map is highest"
    background = f"the {_percent(attributes['background_fraction'])} of each image where it is lowest"
    erosion = attributes.get("erosion", 0)
    eroded = f"; both lose {erosion} {'pixel' if erosion == 1 else 'pixels'} at their edges" if erosion else ""
    background_class = attributes.get("background_class")
    empty = f"; images of {background_class} are background throughout" if background_class else ""
    return f"foreground is {foreground}, background {background}{eroded}{empty}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g}%"


def write_label_sheet(store: PseudoLabelStore, output: Path, *, count: int, images: Path | None) -> None:
    """Write a PNG with a captioned row per image: the image if its folder is given, the CAM, and the labels.

    Args:
        store: the store.
        output: PNG file.
        count: number of images, evenly over the store.
        images: the folder that the store's image ids start from; None draws CAM and labels on white.
    """
    classes, class_idx = store.attributes["classes"], store.class_idx()
    parts = [_caption(LEGEND if images is None else f"image, {LEGEND}")]
    for row in np.linspace(0, len(store) - 1, min(count, len(store))).round().astype(int):
        image_id = store.image_ids[row]
        parts += [_caption(f"{image_id}: {classes[class_idx[row]]}"), _row(store, image_id, images)]
    width = max(part.shape[1] for part in parts)
    sheet = np.concatenate([_widened(part, width) for part in parts])
    write_picture(output, sheet)


def _row(store: PseudoLabelStore, image_id: str, images: Path | None) -> Picture:
    stored = store.read(image_id)
    heat = stored.cam.astype(np.float32)
    shown: list[Picture] = []
    ground = np.full((*stored.labels.shape, 3), 255, dtype=np.uint8)
    if images is not None:
        ground = read_image(images / image_id)
        shown.append(ground)
    shown += [heat_overlay(ground, heat=heat), label_overlay(ground, labels=stored.labels)]
    side = min(CELL_SIDE, max(ground.shape[:2]))
    return contact_sheet([shown], side=side)


def _caption(text: str) -> Picture:
    """Return a line of text on white, as wide as it needs."""
    font = ImageFont.load_default(size=TEXT_SIZE)
    strip = Image.new("RGB", (round(font.getlength(text)) + 2 * TEXT_SIZE, 2 * TEXT_SIZE), SHEET_COLOUR)
    ImageDraw.Draw(strip).text((TEXT_SIZE // 2, TEXT_SIZE // 2), text, fill=TEXT_COLOUR, font=font)
    return np.asarray(strip)


def _widened(part: Picture, width: int) -> Picture:
    return np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255)
