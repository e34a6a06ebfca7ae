"""A slide on one picture: its heatmap over the grey thumbnail, with tissue, regions and annotation in outline."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import shapely
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from pipeline.runtime.files import replacing_file
from pipeline.slides.heat import CERTAIN, Heat
from pipeline.slides.pyramids import halve
from pipeline.slides.regions import Region

Picture = NDArray[np.uint8]  # (H, W, 3), RGB
Colour = tuple[int, int, int]

# The report's colours, which lies above this package: viridis, its strength on dark tissue, and colour-blind eyes' own.
HEAT_COLOURS: Final = "viridis"
OPACITY: Final = 0.75
SHADE: Final = 0.4
RELATIVE_LUMINANCE: Final = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709
TISSUE_COLOUR: Final = (86, 180, 233)  # sky blue
REGION_COLOUR: Final = (213, 94, 0)  # vermilion
ANNOTATION_COLOUR: Final = (255, 255, 255)
EDGE_COLOUR: Final = (20, 20, 20)  # beside what is light, so that it shows on any ground
PAPER: Final = (255, 255, 255)
INK: Final = (40, 40, 40)

FINER: Final = 2  # lines and letters are drawn at so many times the size, to be smooth
TEXT_SHARE: Final = 1 / 64  # of the longer side
BAR_SHARE: Final = 0.2  # of the width, which the scale bar does not exceed
LARGEST_PANEL: Final = 0.5  # of either side; where scale and legend would take more they are left out


class _Sign(NamedTuple):
    """What a line of the legend says, and the colour and the edge of its line."""

    text: str
    colour: Colour
    edge: Colour | None


class _Panel(NamedTuple):
    """The scale and the legend, and their size in pixels."""

    image: Image.Image
    size: tuple[int, int]


def draw_overview(
    thumbnail: Picture,
    heat: Heat,
    *,
    thumbnail_mpp: float,
    tissue: NDArray[np.bool_] | None,
    regions: Sequence[Region],
    annotation: shapely.Geometry | None,
) -> Picture:
    """Draw all that was found on a slide.

    Args:
        thumbnail: the whole slide, uint8 (H, W, 3).
        heat: its heatmap.
        thumbnail_mpp: micrometres for a pixel of the thumbnail.
        tissue: where the slide shows tissue, bool (h, w) of any size over the same area; None draws no outline of it.
        regions: in pixels of level 0.
        annotation: polygons in pixels of level 0; None where there is none to be known.

    Returns:
        uint8 (H, W, 3): heat in viridis where it was looked at, outlines, and in the emptiest corner a scale bar and a
        legend, unless the picture is too small for them.
    """
    height, width = thumbnail.shape[:2]
    probabilities, seen = _resample(heat, size=(height, width), mpp=thumbnail_mpp)
    coloured = _lay_heat(thumbnail, probabilities, seen=seen)
    canvas = Image.fromarray(coloured).resize((width * FINER, height * FINER), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    line = max(1.0, max(height, width) / 1024) * FINER
    signs: list[_Sign] = []
    if tissue is not None:
        signs.append(_Sign("tissue", TISSUE_COLOUR, None))
        scale = np.array([width / tissue.shape[1], height / tissue.shape[0]])
        _draw_rings(draw, (ring * scale for ring in _rings_of_mask(tissue)), signs[-1], width=line)
    per_pixel = heat.mpp / thumbnail_mpp
    if annotation is not None:
        signs.append(_Sign("annotation", ANNOTATION_COLOUR, EDGE_COLOUR))
        _draw_rings(draw, (ring * per_pixel for ring in _rings_of(annotation)), signs[-1], width=1.5 * line)
    signs.append(_Sign("regions", REGION_COLOUR, None))
    outlines = (ring * per_pixel for region in regions for ring in _rings_of(region.polygon))
    _draw_rings(draw, outlines, signs[-1], width=1.5 * line)
    panel = _draw_panel(signs, size=canvas.size, micrometres=thumbnail_mpp / FINER)
    if all(part <= LARGEST_PANEL * whole for part, whole in zip(panel.size, canvas.size, strict=True)):
        canvas.paste(panel.image, _emptiest_corner(seen, panel.size))
    return np.asarray(canvas.reduce(FINER))


def write_overview(path: Path, picture: Picture) -> None:
    """Write a picture as PNG, whole or not at all.

    Raises:
        PixelCAMError: the system does not let it be written.
    """
    with replacing_file(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def _lay_heat(thumbnail: Picture, probabilities: NDArray[np.float32], *, seen: NDArray[np.bool_]) -> Picture:
    """Lay probabilities (H, W) over the grey thumbnail where they were seen, darker where the tissue is dark."""
    grey = np.repeat((thumbnail @ np.array(RELATIVE_LUMINANCE))[..., None], 3, axis=2)  # (H, W, 3)
    colours = np.asarray(colormaps[HEAT_COLOURS](probabilities))[..., :3] * 255
    tinted = OPACITY * colours * (1 - SHADE + SHADE * grey / 255) + (1 - OPACITY) * grey
    return np.where(seen[..., None], tinted, grey).round().astype(np.uint8)


def _resample(heat: Heat, *, size: tuple[int, int], mpp: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return probabilities (H, W) at another number of micrometres per pixel, and where most was looked at."""
    values, pixel_size = heat.values, heat.pixel_size
    while pixel_size * 2 <= mpp:
        values, pixel_size = halve(values), pixel_size * 2
    at_hand = Heat(values, 1.0, pixel_size)
    box = (0, 0, size[1] * mpp / pixel_size, size[0] * mpp / pixel_size)
    missing = [max(0, int(np.ceil(there)) - here) for there, here in zip(box[:1:-1], values.shape, strict=True)]
    weight, weighted = (
        np.asarray(
            Image.fromarray(np.pad(part, ((0, missing[0]), (0, missing[1])))).resize(
                (size[1], size[0]), Image.Resampling.BILINEAR, box=box
            )
        )
        for part in (at_hand.seen.astype(np.float32), at_hand.probabilities)
    )
    return (weighted / np.maximum(weight, 1 / CERTAIN)).clip(0, 1), weight >= 0.5


def _rings_of_mask(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Yield the outlines (n, 2) of a mask, x and y from its upper left corner in its pixels."""
    for ring in find_contours(np.pad(mask, 1), 0.5):  # type: ignore[no-untyped-call]
        yield ring[:, ::-1] - 0.5


def _rings_of(geometry: shapely.Geometry) -> Iterator[NDArray[np.float64]]:
    """Yield the rings (n, 2) of polygons."""
    for ring in shapely.get_rings(shapely.get_parts(geometry)):
        yield shapely.get_coordinates(ring)


def _draw_rings(draw: ImageDraw.ImageDraw, rings: Iterator[NDArray[np.float64]], sign: _Sign, *, width: float) -> None:
    """Draw rings, given in pixels of the thumbnail."""
    finer = [[tuple(corner) for corner in (ring * FINER).tolist()] for ring in rings]
    if sign.edge is not None:
        for ring in finer:
            draw.line(ring, fill=sign.edge, width=round(2 * width), joint="curve")
    for ring in finer:
        draw.line(ring, fill=sign.colour, width=round(width), joint="curve")


def _round_length(longest: float) -> float:
    """Return the longest of 1, 2 and 5 times a power of ten that is no longer."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(power * max(step for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9)))


def _draw_panel(signs: Sequence[_Sign], *, size: tuple[int, int], micrometres: float) -> _Panel:
    """Draw the scale bar, the colours of probabilities and what the lines mean.

    Args:
        signs: of the lines.
        size: width and height of the picture in pixels.
        micrometres: for one of these.
    """
    text = max(round(max(size) * TEXT_SHARE), 10 * FINER)
    font = ImageFont.load_default(size=text)
    length = _round_length(BAR_SHARE * size[0] * micrometres)
    bar = round(length / micrometres)
    label = f"{length / 1e3:g} mm"
    ramp, sample, step = 6 * text, 2 * text, round(1.5 * text)
    entries = ["0", "1 probability", *(sign.text for sign in signs)]
    widest = max(font.getlength(entry) for entry in entries)
    width = round(max(bar, font.getlength(label), ramp + 2 * text + widest) + 2 * text)
    height = text + step + step * (len(signs) + 2)
    panel = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(panel)
    draw.text((text, text // 2), label, fill=INK, font=font)
    top = text // 2 + step
    draw.rectangle((text, top, text + bar - 1, top + text // 3), fill=INK)
    top += step - text // 2
    draw.text((text, top), "0", fill=INK, font=font)
    left = round(text + font.getlength("0") + text // 2)
    colours = np.asarray(colormaps[HEAT_COLOURS](np.linspace(0, 1, ramp)))[..., :3] * 255
    strip = np.repeat(colours.round().astype(np.uint8)[None], text, axis=0)
    panel.paste(Image.fromarray(strip), (left, top + text // 8))
    draw.text((left + ramp + text // 2, top), "1 probability", fill=INK, font=font)
    for number, sign in enumerate(signs, start=1):
        middle = top + number * step + text * 0.6
        ends = np.array([[text, middle], [text + sample, middle]]) / FINER
        _draw_rings(draw, iter([ends]), sign, width=text / 6)
        draw.text((text + sample + text // 2, top + number * step), sign.text, fill=INK, font=font)
    return _Panel(panel, panel.size)


def _emptiest_corner(seen: NDArray[np.bool_], size: tuple[int, int]) -> tuple[int, int]:
    """Return where on the canvas a panel of a size, width and height, hides least of `seen`, bool (H, W)."""
    height, width = (FINER * side for side in seen.shape)
    corners = [(x, y) for y in (height - size[1], 0) for x in (0, width - size[0])]

    def hidden(corner: tuple[int, int]) -> int:
        (x, y), (w, h) = corner, size
        return int(seen[y // FINER : (y + h) // FINER, x // FINER : (x + w) // FINER].sum())

    return min(corners, key=hidden)
