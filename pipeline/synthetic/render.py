"""The door to the synthetic histology: one image with its exact mask, from nothing but its arguments."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.choices import Tissue
from pipeline.synthetic.colon import paint_colon
from pipeline.synthetic.frame import BoolMap, Frame
from pipeline.synthetic.lymph_node import paint_lymph_node
from pipeline.synthetic.stains import SlideStyle, StainMaps, draw_style, scan
from pipeline.synthetic.tones import Region, take_tones

_COMPANION_SIZE = 128  # pixels: enough for a distribution
_STREAMS = {Tissue.COLON: 0, Tissue.LYMPH_NODE: 1}  # keep the tissues' random streams apart


@dataclass(frozen=True)
class RenderedImage:
    """A synthetic image and its ground truth."""

    image: npt.NDArray[np.uint8]  # (H, W, 3), sRGB
    mask: BoolMap  # (H, W), True on the region of interest


def render_image(tissue: Tissue, *, class_idx: int, size: int, seed: int, index: int) -> RenderedImage:
    """Render one image of a tissue.

    Args:
        tissue: the colon, whose region of interest is its glands; or the lymph node, whose region is tumour nests.
        class_idx: 0 benign or normal, 1 malignant or metastatic.
        size: side in pixels; the field of view is the same at any size.
        seed: the data set's seed, from 0.
        index: the image's number in the data set, from 0.

    Returns:
        The image and its mask; in a normal lymph node the mask is empty.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, class_idx, _STREAMS[tissue]]))
    style = draw_style(rng, tissue)
    small = Frame(min(size, _COMPANION_SIZE))
    companions = [_paint(rng, tissue, class_idx=other, frame=small, style=style) for other in range(2)]
    stains, mask = _paint(rng, tissue, class_idx=class_idx, frame=Frame(size), style=style)
    toned = take_tones(_region(tissue, stains, mask), [_region(tissue, *companion) for companion in companions])
    return RenderedImage(scan(rng, toned, style), mask)


def _region(tissue: Tissue, stains: StainMaps, mask: BoolMap) -> Region:
    """Return where both classes are to have the same tones: in glands, or in all of a node, as one may have none."""
    return Region(stains, mask if tissue is Tissue.COLON and mask.any() else np.ones_like(mask))


def _paint(
    rng: np.random.Generator, tissue: Tissue, *, class_idx: int, frame: Frame, style: SlideStyle
) -> tuple[StainMaps, BoolMap]:
    """Return the stains of a tissue as the microscope sees them, and the mask of its region of interest."""
    match tissue:
        case Tissue.COLON:
            stains, mask = paint_colon(rng, frame, malignant=class_idx == 1)
        case Tissue.LYMPH_NODE:
            stains, mask = paint_lymph_node(rng, frame, metastatic=class_idx == 1, empty=style.empty)
    return stains.smeared(style.blur * frame.scale), mask
