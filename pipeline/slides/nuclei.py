"""Whether nuclei have the size of nuclei, so that a slide whose mpp is wrong is noticed."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2hed

from pipeline.slides.reading import Slide, UInt8Image

LEAST: Final = 3.5  # micrometres; nuclei, and the grains of large ones, measure 4.6 to 5.6 in colon and lymph nodes
MOST: Final = 10.0
LOOKED_AT: Final = 3  # places of a slide
SIDE: Final = 384  # pixels of each
MPP: Final = 0.5  # micrometres per pixel at which they are looked at, or the slide's own where that is more
SCALES: Final = np.geomspace(0.7, 12, 12)  # standard deviations in pixels


def doubt_about_mpp(slide: Slide, corners: NDArray[np.int64], *, side: float) -> list[str]:
    """Return a warning where nuclei have a size that nuclei have not, else nothing.

    Args:
        slide: as its file or its table says its mpp.
        corners: int64 (n, 2), squares of tissue, in pixels of level 0.
        side: of the squares, likewise.
    """
    if not len(corners):
        return []
    places = corners[np.linspace(0, len(corners) - 1, min(LOOKED_AT, len(corners))).round().astype(int)]
    mpp = max(MPP, slide.mpp)
    half = side / 2 - SIDE * mpp / slide.mpp / 2
    parts = (slide.read((x + half, y + half), size=(SIDE, SIDE), downsample=mpp / slide.mpp) for x, y in places)
    diameter = float(np.median([nucleus_diameter(part) for part in parts])) * mpp
    if LEAST <= diameter <= MOST:
        return []
    return [
        f"warning: {slide.path.name}: nuclei seem to be {diameter:.1f} micrometres wide at {slide.mpp:g} micrometres "
        f"per pixel, where {LEAST} to {MOST} are expected; give the right value as mpp in the table"
    ]


def nucleus_diameter(picture: UInt8Image) -> float:
    """Return the usual diameter of dark blue spots of a picture, uint8 (H, W, 3), in pixels.

    It belongs to the scale at which the haematoxylin answers most to a Laplacian of a Gaussian (Lindeberg, 1998), by
    the mean square of what is darker than its surroundings.
    """
    stain = rgb2hed(picture)[..., 0].astype(np.float32)
    darker = (np.clip(-(sigma**2) * ndimage.gaussian_laplace(stain, sigma), 0, None) for sigma in SCALES)
    answers = [float(np.square(answer).mean()) for answer in darker]
    return float(2 * np.sqrt(2) * SCALES[int(np.argmax(answers))])
