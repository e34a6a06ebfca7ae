"""Where a slide shows tissue: Otsu's threshold of its saturation, without ink, specks and small holes."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from pipeline.params.errors import PixelCAMError
from pipeline.params.slides import TissueParams
from pipeline.slides.reading import Slide, UInt8Image

BoolMap = NDArray[np.bool_]
LEAST_SATURATION: Final = 0.06  # of stained tissue; glass has less, noise and all
SQUARE_MICROMETRES: Final = 1e6  # in a mm2


def find_tissue(slide: Slide, params: TissueParams) -> BoolMap:
    """Return where a slide shows tissue, bool (h, w) at `params.mpp` micrometres per pixel.

    Raises:
        PixelCAMError: it shows none.
    """
    tissue = segment_tissue(slide.thumbnail(mpp=params.mpp), params)
    if not tissue.any():
        raise PixelCAMError(
            f"{slide.path}: shows no tissue, only glass, ink or specks below {params.smallest_speck} mm2; remove it, "
            "or lower slides.tissue.smallest_speck"
        )
    return tissue


def segment_tissue(picture: UInt8Image, params: TissueParams) -> BoolMap:
    """Return where a picture of a slide, uint8 (H, W, 3) at `params.mpp`, shows tissue: bool (H, W).

    Both stains absorb green most, so that where another channel is darkest there is ink.
    """
    values = picture.astype(np.float32)
    highest, lowest = values.max(axis=2), values.min(axis=2)
    saturation = (highest - lowest) / np.maximum(highest, 1)
    no_ink = values[..., 1] <= lowest
    if not (saturation[no_ink] > LEAST_SATURATION).any():
        return np.zeros(saturation.shape, dtype=np.bool_)
    cut = max(float(threshold_otsu(saturation[no_ink])), LEAST_SATURATION)  # type: ignore[no-untyped-call]
    tissue = (saturation > cut) & no_ink
    pixel_area = params.mpp**2 / SQUARE_MICROMETRES
    tissue = remove_small_objects(tissue, max_size=int(params.smallest_speck / pixel_area))
    filled = remove_small_holes(tissue, max_size=int(params.largest_hole / pixel_area))
    return np.asarray(filled, dtype=np.bool_)


def tissue_area(tissue: BoolMap, *, mpp: float) -> float:
    """Return the area of tissue (h, w) at `mpp` micrometres per pixel, in mm2."""
    return float(tissue.sum()) * mpp**2 / SQUARE_MICROMETRES
