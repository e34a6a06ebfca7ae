"""Pseudo-labels: a CAM turned into pixel labels, by the rule that the parameters choose."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d

from pipeline.params.config import ExtractionParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import BACKGROUND, FOREGROUND, IGNORE, ForegroundRule, Refinement

OTSU_BINS: Final = 256


def threshold_cam(
    cam: NDArray[np.floating], *, foreground_threshold: float, background_fraction: float
) -> NDArray[np.uint8]:
    """Cut one map into pseudo-labels by a threshold; `make_pseudo_labels` knows the other rules.

    Args:
        cam: floating point (H, W) in [0, 1], higher is foreground.
        foreground_threshold: in (0, 1); pixels with a CAM of at least this are foreground.
        background_fraction: in (0, 1); this share of the pixels, those with the lowest CAM, is background.

    Returns:
        uint8 (H, W): 0 background, 1 foreground, 255 ignore.

    Raises:
        PixelCAMError: a value out of its range, or a map that is none.
    """
    for name, value in (("foreground_threshold", foreground_threshold), ("background_fraction", background_fraction)):
        if not 0 < value < 1:
            raise PixelCAMError(f"{name} must lie in (0, 1), got {value}")
    if cam.ndim != 2 or not (cam.min() >= 0 and cam.max() <= 1):
        raise PixelCAMError(f"cam must be one map (H, W) in [0, 1], got {cam.shape} from {cam.min()} to {cam.max()}")
    params = ExtractionParams(
        batch_size=1,
        refine=Refinement.NONE,
        foreground_rule=ForegroundRule.THRESHOLD,
        foreground_threshold=foreground_threshold,
        foreground_fraction=background_fraction,  # of another rule
        background_fraction=background_fraction,
        erosion=0,
    )
    return make_pseudo_labels(torch.from_numpy(cam).float().unsqueeze(0), params)[0].numpy()


def make_pseudo_labels(cam: Tensor, params: ExtractionParams) -> Tensor:
    """Turn CAMs into pseudo-labels: foreground where high, background where lowest, ignore in between.

    Foreground wins where both apply. Both then lose `erosion` pixels at their edges. A constant CAM says nothing and is
    ignored. No choice depends on a pixel's position: pixels of equal CAM are labelled alike, until the erosion.

    Args:
        cam: float (B, H, W) in [0, 1].
        params: the rule and its values; `erosion` counts pixels of the CAM as given.

    Returns:
        uint8 (B, H, W): 0 background, 1 foreground, 255 ignore.
    """
    match params.foreground_rule:
        case ForegroundRule.THRESHOLD:
            foreground = cam >= params.foreground_threshold
        case ForegroundRule.OTSU:
            foreground = _above_otsu(cam)
        case ForegroundRule.PERCENTILE:
            foreground = _highest(cam, params.foreground_fraction)
    background = _lowest(cam, params.background_fraction) & ~foreground
    labels = torch.full_like(cam, IGNORE, dtype=torch.uint8)
    # Filled, not indexed: to index by a mask may wait for a GPU to count it.
    labels.masked_fill_(_eroded(background, params.erosion), BACKGROUND)
    labels.masked_fill_(_eroded(foreground, params.erosion), FOREGROUND)
    return labels.masked_fill_(cam.amin((1, 2), keepdim=True) == cam.amax((1, 2), keepdim=True), IGNORE)


def name_foreground(labels: Tensor, class_idx: Tensor) -> Tensor:
    """Call each foreground pixel by the class of its image.

    Args:
        labels: uint8 (B, H, W): 0 background, 1 foreground, 255 ignore.
        class_idx: int64 (B,), below 254.

    Returns:
        uint8 (B, H, W): 1 + `class_idx` where there was 1.
    """
    return torch.where(labels == FOREGROUND, (1 + class_idx).to(labels.dtype)[:, None, None], labels)


def _lowest(cam: Tensor, fraction: float) -> Tensor:
    """Return where each map is lowest, bool (B, H, W): a share of its pixels and all that equal the highest of them."""
    flat = cam.flatten(1)
    return cam <= flat.kthvalue(_pixels(flat, fraction), dim=1).values[:, None, None]


def _highest(cam: Tensor, fraction: float) -> Tensor:
    """Return where each map is highest, bool (B, H, W): a share of its pixels and all that equal the lowest of them.

    The lowest value of a map is never among its highest: where most of a CAM is zero, its zeros are no foreground.
    """
    flat = cam.flatten(1)
    lowest_of_them = flat.kthvalue(flat.shape[1] + 1 - _pixels(flat, fraction), dim=1).values[:, None, None]
    return (cam >= lowest_of_them) & (cam > cam.amin((1, 2), keepdim=True))


def _pixels(flat: Tensor, fraction: float) -> int:
    return max(1, round(fraction * flat.shape[1]))


def _above_otsu(cam: Tensor) -> Tensor:
    """Return where each map lies above its Otsu threshold, bool (B, H, W); nowhere in a constant one.

    The histogram spans a map's own range. Of all splits between two bins, the first of those with the greatest variance
    between the classes is taken.

    Source: Otsu, A threshold selection method from gray-level histograms, IEEE Trans. SMC 9 (1), 1979.
    """
    flat = cam.flatten(1).double()
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    span = (high - low).clamp_min(torch.finfo(flat.dtype).tiny)
    bins = ((flat - low) / span * OTSU_BINS).long().clamp_max(OTSU_BINS - 1)
    counts = flat.new_zeros(len(flat), OTSU_BINS).scatter_add_(1, bins, torch.ones_like(flat))
    below = counts.cumsum(1)  # pixels up to and in each bin
    moment = (counts * torch.arange(OTSU_BINS, device=flat.device)).cumsum(1)
    above = flat.shape[1] - below
    # below * above * (difference of the means) squared, up to a factor; sums of whole numbers, so equal splits tie
    variance = (moment[:, -1:] * below - moment * flat.shape[1]) ** 2 / (below * above).clamp_min(1)
    return (bins > variance.argmax(1, keepdim=True)).view_as(cam)


def _eroded(region: Tensor, pixels: int) -> Tensor:
    """Return regions, bool (B, H, W), without what lies within `pixels` of other pixels, along rows, columns or both.

    The border of the image is no edge of a region.
    """
    if pixels == 0:
        return region
    pixels = min(pixels, max(region.shape[-2:]))  # the whole image: any number will do
    side = 2 * pixels + 1
    other = (~region).float()  # max_pool2d pads with less than any value, so that nothing lies beyond the border
    other = max_pool2d(other, (side, 1), stride=1, padding=(pixels, 0))
    return max_pool2d(other, (1, side), stride=1, padding=(0, pixels)) == 0
