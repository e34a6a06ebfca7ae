"""Pictures of maps, masks and labels on the image they belong to; what a store holds, in words and as a contact sheet.

All take and give uint8 (H, W, 3) RGB, never write into what they are given, and share one palette: viridis, whose order
of lightness survives print, grey and colour-blind eyes, and whose ends are the colours of background and foreground.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pipeline.data.images import read_image
from pipeline.params.vocabulary import BACKGROUND, IGNORE, ForegroundRule
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.runtime.files import replacing_file

Picture = npt.NDArray[np.uint8]  # (H, W, 3), RGB
HEAT_COLOURS: Final = "viridis"
FOREGROUND_COLOUR: Final = (253, 231, 37)  # viridis at 1
BACKGROUND_COLOUR: Final = (68, 1, 84)  # viridis at 0
CLASS_COLOURS: Final = {  # of the labels 1, 2, ...: foreground's, then others that colour-blind eyes tell apart
    "yellow": FOREGROUND_COLOUR,
    "sky blue": (86, 180, 233),
    "vermilion": (213, 94, 0),
    "green": (0, 158, 115),
    "pink": (204, 121, 167),
}
CONTOUR_COLOUR: Final = (255, 255, 255)
EDGE_SHADE: Final = 0.2  # what a contour leaves of the brightness beside it
OPACITY: Final = 0.75  # enough colour to read a value, enough tissue to know where one is
SHADE: Final = 0.4  # how much of a colour's strength dark tissue takes
SHEET_COLOUR: Final = (255, 255, 255)
RELATIVE_LUMINANCE: Final = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709


def heat_overlay(image: Picture, *, heat: npt.NDArray[np.float32]) -> Picture:
    """Lay a map over the grey image.

    Args:
        image: uint8 (H, W, 3).
        heat: floating point (h, w) in [0, 1], of any size; it is interpolated to the image's.
    """
    colours = np.asarray(colormaps[HEAT_COLOURS](_resize_heat(heat, image)))[..., :3] * 255  # (H, W, 3)
    return _tint(_grey(image), colours)


def mask_contour(image: Picture, *, mask: npt.NDArray[np.bool_]) -> Picture:
    """Draw the outline of a mask, light with a dark edge, so that it shows on any ground.

    Args:
        image: uint8 (H, W, 3).
        mask: bool (h, w), True is inside; brought to the image's size without interpolation.
    """
    outline, edge = _outline_and_edge(mask, image)
    drawn = image.copy()
    drawn[edge] = (EDGE_SHADE * image[edge]).round().astype(np.uint8)
    drawn[outline] = CONTOUR_COLOUR
    return drawn


def outline_layer(mask: npt.NDArray[np.bool_], *, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return the outline of a mask as a layer, uint8 (*size, 4): light with a dark edge, transparent elsewhere."""
    outline, edge = _outline_and_edge(mask, np.empty((*size, 3), dtype=np.uint8))
    layer = np.zeros((*size, 4), dtype=np.uint8)
    layer[edge, 3] = round(255 * (1 - EDGE_SHADE))
    layer[outline] = (*CONTOUR_COLOUR, 255)
    return layer


def colour_map(heat: npt.NDArray[np.float32], *, size: tuple[int, int]) -> Picture:
    """Return a map (h, w) in [0, 1] in its colours alone, at (height, width) of `size`, without an image under it."""
    resized = _resize_heat(heat, np.empty((*size, 3), dtype=np.uint8))
    return (np.asarray(colormaps[HEAT_COLOURS](resized))[..., :3] * 255).round().astype(np.uint8)


def label_colours(pixel_classes: Sequence[str]) -> dict[str, tuple[str, tuple[int, int, int]]]:
    """Return by name of each pixel class, foreground before background, what its colour is called and is, RGB."""
    background, *foreground = pixel_classes
    colours = zip(foreground, cycle(CLASS_COLOURS.items()), strict=False)
    return dict(colours) | {background: ("purple", BACKGROUND_COLOUR)}


def label_colour(label: int) -> tuple[int, int, int]:
    """Return the colour of a label but ignore; beyond the last of the colours they begin anew."""
    return BACKGROUND_COLOUR if label == BACKGROUND else list(CLASS_COLOURS.values())[(label - 1) % len(CLASS_COLOURS)]


def _labels_in(labels: npt.NDArray[np.uint8]) -> list[int]:
    return [label for label in np.unique(labels).tolist() if label != IGNORE]


def colour_labels(labels: npt.NDArray[np.uint8], *, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return labels as a layer, uint8 (*size, 4): background purple, classes in their colours, the rest transparent."""
    resized = _resize_labels(labels, np.empty((*size, 3), dtype=np.uint8))
    layer = np.zeros((*size, 4), dtype=np.uint8)
    for label in _labels_in(resized):
        layer[resized == label] = (*label_colour(label), 255)
    return layer


def label_overlay(image: Picture, *, labels: npt.NDArray[np.uint8]) -> Picture:
    """Colour labels over the grey image: yellow is foreground, purple background, bare grey is ignored.

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 (h, w): 0 background, 1 foreground or 1, 2, ... the image classes, each in its colour, 255 ignore;
            brought to the image's size without interpolation.
    """
    grey = _grey(image)
    labels = _resize_labels(labels, image)
    coloured = grey.copy()
    for label in _labels_in(labels):
        where = labels == label
        coloured[where] = _tint(grey[where], np.array(label_colour(label)))
    return coloured.round().astype(np.uint8)


def fit(image: Picture, *, side: int) -> Picture:
    """Shrink a picture so that its longer side is at most `side` pixels; a smaller one stays as it is."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def contact_sheet(rows: Sequence[Sequence[Picture]], *, side: int) -> Picture:
    """Arrange pictures in rows, each shrunk into a square cell of `side` pixels, with white between them.

    Raises:
        ValueError: there is no picture.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ValueError("a contact sheet needs at least one picture")
    gap = max(2, side // 32)
    shape = (len(rows) * (side + gap) + gap, columns * (side + gap) + gap, 3)
    sheet = np.full(shape, SHEET_COLOUR, dtype=np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            small = fit(picture, side=side)
            top = gap + row * (side + gap) + (side - small.shape[0]) // 2
            left = gap + column * (side + gap) + (side - small.shape[1]) // 2
            sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
    return sheet


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture as PNG, whole or not at all."""
    with replacing_file(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def _grey(image: Picture) -> npt.NDArray[np.float64]:
    """Return the image's luminance as float64 (H, W, 3), so that colour over it means one thing only."""
    luminance = image.astype(np.float64) @ np.array(RELATIVE_LUMINANCE)
    return np.repeat(luminance[..., np.newaxis], 3, axis=2)


def _outline_and_edge(
    mask: npt.NDArray[np.bool_], image: Picture
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return where the outline of a mask and where its edge lie at an image's size, both bool (H, W)."""
    inside = _resize_labels(mask.astype(np.uint8), image) > 0
    width = max(1, round(max(image.shape[:2]) / 256))
    outline = inside & ~ndimage.binary_erosion(inside, iterations=width, border_value=1)
    return outline, ndimage.binary_dilation(outline, iterations=width)


def _resize_heat(heat: npt.NDArray[np.float32], image: Picture) -> npt.NDArray[np.float32]:
    height, width = image.shape[:2]
    resized = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32).clip(0, 1)


def _resize_labels(labels: npt.NDArray[np.uint8], image: Picture) -> npt.NDArray[np.uint8]:
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))


def _tint(grey: npt.NDArray[np.float64], colours: npt.NDArray[np.float64]) -> Picture:
    """Lay colours in [0, 255] over grey tissue, darker where the tissue is dark."""
    shaded = colours * (1 - SHADE + SHADE * grey / 255)
    return (OPACITY * shaded + (1 - OPACITY) * grey).round().astype(np.uint8)


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
        shares = zip((*store.pixel_classes, "ignore"), pixels / max(1, pixels.sum()), strict=True)
        said = ", ".join(f"{label} {share:.1%}" for label, share in shares)
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
    refine = attributes.get("refine")
    refined = f"; maps were refined by {refine} {attributes['refine_parameters']} before" if refine else ""
    return f"foreground is {foreground}, background {background}{eroded}{empty}{refined}"


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
    named = ", ".join(f"{colour} {name}" for name, (colour, _) in label_colours(store.pixel_classes).items())
    legend = f"CAM (yellow is high), labels ({named}, the rest ignored)"
    parts = [_caption(legend if images is None else f"image, {legend}")]
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
