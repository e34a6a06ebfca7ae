"""Maps refined by the image's own edges before they are cut: a map of a few cells comes to end where tissue does.

Each takes a map of the labels' size and gives another, stretched to [0, 1]; what is cut from it, and how, is as ever.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import random_walker, slic
from torch import Tensor
from torch.nn.functional import pad

from pipeline.cams.request import normalize_cam
from pipeline.data.maps import scale_images
from pipeline.params.config import ExtractionParams
from pipeline.params.vocabulary import BACKGROUND, FOREGROUND, Refinement
from pipeline.pseudo_labels.thresholding import make_pseudo_labels
from pipeline.runtime.threads import in_threads

PAMR_DILATIONS: Final = (1, 2, 4, 8, 12, 24)  # as published
PAMR_ITERATIONS: Final = 10
PAMR_SHARPNESS: Final = 0.1  # of the local standard deviation that colours are compared by, as in the published code
WALK_BETA: Final = 130.0  # scikit-image's default: how much an edge of the image hinders the walk
WALK_SLACK: Final = 0.1  # how far its solver may leave [0, 1] unsaid; it is cut off
SUPERPIXELS: Final = 400  # per image
COMPACTNESS: Final = 10.0  # scikit-image's default
ROUNDING: Final = 1e-8

PARAMETERS: Final[dict[Refinement, dict[str, Any]]] = {  # as the store names them
    Refinement.NONE: {},
    Refinement.PAMR: {
        "dilations": list(PAMR_DILATIONS),
        "iterations": PAMR_ITERATIONS,
        "sharpness": PAMR_SHARPNESS,
    },
    Refinement.RANDOM_WALK: {"beta": WALK_BETA},
    Refinement.SLIC: {"superpixels": SUPERPIXELS, "compactness": COMPACTNESS},
}


def refine_cams(cams: Tensor, images: Tensor, params: ExtractionParams) -> Tensor:
    """Refine maps by their images, as the params choose; without a choice they come back as they are.

    Args:
        cams: float (B, H, W) in [0, 1].
        images: float (B, 3, H', W') in [0, 1], on the same device; brought to the size of the maps.
        params: the refinement; a random walk starts from the labels that they make of the map itself.

    Returns:
        float32 (B, H, W) in [0, 1].
    """
    if params.refine is Refinement.NONE:
        return cams
    images = scale_images(images.float(), cams.shape[-1] / images.shape[-1])
    match params.refine:
        case Refinement.PAMR:
            refined = pamr(cams.float(), images)
        case Refinement.RANDOM_WALK:
            refined = _one_by_one(cams, images, make_pseudo_labels(cams, params))
        case Refinement.SLIC:
            refined = _one_by_one(cams, images, None)
    constant = cams.amin((1, 2), keepdim=True) == cams.amax((1, 2), keepdim=True)
    return normalize_cam(refined).masked_fill(constant, 0)  # rounding makes something of nothing


def pamr(cams: Tensor, images: Tensor) -> Tensor:
    """Let each pixel of a map become the mean of its neighbours, weighted by how like it they look, ten times over.

    Neighbours are the eight at each of several distances. Their weights are the softmax, over all of them, of the
    negative difference of colour, in units of a tenth of its local standard deviation, mean over the channels. Source:
    pixel-adaptive mask refinement, Araslanov and Roth, Single-stage semantic segmentation from image labels, CVPR 2020.

    Args:
        cams: float32 (B, H, W).
        images: float32 (B, 3, H, W).

    Returns:
        float32 (B, H, W), within the range of each map.
    """
    likeness = torch.zeros((), device=cams.device)
    for channel in images.unbind(dim=1):
        near = torch.stack(list(_neighbours(channel)), dim=1)  # (B, N, H, W)
        spread = torch.cat([near, channel.unsqueeze(1)], dim=1).std(dim=1, keepdim=True)
        likeness = likeness - (near - channel.unsqueeze(1)).abs() / (ROUNDING + PAMR_SHARPNESS * spread)
    weights = (likeness / images.shape[1]).softmax(dim=1)
    for _ in range(PAMR_ITERATIONS):
        cams = sum(
            (weight * near for weight, near in zip(weights.unbind(dim=1), _neighbours(cams), strict=True)),
            start=torch.zeros_like(cams),
        )
    return cams


def _neighbours(maps: Tensor) -> Iterator[Tensor]:
    """Yield maps (B, H, W) moved by each distance in each of eight directions; beyond the border its pixels go on."""
    height, width = maps.shape[-2:]
    reach = max(PAMR_DILATIONS)
    padded = pad(maps.unsqueeze(1), (reach, reach, reach, reach), mode="replicate").squeeze(1)
    for dilation in PAMR_DILATIONS:
        for down in (reach - dilation, reach, reach + dilation):
            for right in (reach - dilation, reach, reach + dilation):
                if (down, right) != (reach, reach):
                    yield padded[:, down : down + height, right : right + width]


def walk(image: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return the chance that a walker from each pixel comes to a foreground label before a background one.

    Edges of the image hinder it. Source: Grady, Random walks for image segmentation, IEEE TPAMI 2006; scikit-image.

    Args:
        image: floating point (H, W, 3) in [0, 1].
        labels: uint8 (H, W): 0 background, 1 foreground, 255 where a walker starts.

    Returns:
        float64 (H, W) in [0, 1]; None where the labels name but one of the two, or the image is of one colour.
    """
    seeds = np.zeros(labels.shape, dtype=np.int64)
    seeds[labels == FOREGROUND] = 1
    seeds[labels == BACKGROUND] = 2
    if set(np.unique(seeds)) != {0, 1, 2} or np.ptp(image) == 0:
        return None
    chances = random_walker(
        image, seeds, beta=WALK_BETA, mode="cg_j", return_full_prob=True, prob_tol=WALK_SLACK, channel_axis=-1
    )
    return np.asarray(chances[0], dtype=np.float64).clip(0, 1)


def vote(image: NDArray[np.float32], cam: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a map in which every pixel has the mean of its superpixel. Source: SLIC, Achanta et al., IEEE TPAMI 2012.

    Args:
        image: floating point (H, W, 3) in [0, 1].
        cam: floating point (H, W).
    """
    segments = slic(image, n_segments=SUPERPIXELS, compactness=COMPACTNESS, start_label=0, channel_axis=-1)
    counts = np.bincount(segments.ravel())
    means = np.bincount(segments.ravel(), weights=cam.ravel()) / np.maximum(counts, 1)
    return np.asarray(means[segments], dtype=np.float64)


def _one_by_one(cams: Tensor, images: Tensor, labels: Tensor | None) -> Tensor:
    """Refine on the CPU, an image to a thread: by a walk from labels where there are any, else by a vote."""
    pictures = images.cpu().permute(0, 2, 3, 1).numpy()
    maps = cams.float().cpu().numpy()
    seeds = None if labels is None else labels.cpu().numpy()

    def refined(index: int) -> Tensor:
        found = vote(pictures[index], maps[index]) if seeds is None else walk(pictures[index], seeds[index])
        return torch.from_numpy(maps[index] if found is None else found.astype(np.float32))

    return torch.stack(in_threads(refined, range(len(maps)))).to(cams.device)
