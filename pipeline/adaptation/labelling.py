"""Labels that a model gives images itself: by class centres, to its surest images, or against its own bias.

All take and give tensors on the CPU. A label is int64: a class index, `NO_LABEL`, or `UNLEARN - class_idx`.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from pipeline.adaptation.losses import NO_LABEL, UNLEARN, entropy


def labels_by_centres(features: Tensor, probabilities: Tensor) -> Tensor:
    """Label each image by the class centre whose direction its features are nearest to.

    Centres are means of the features weighted by the probabilities, and then once more of the images that they label.

    Args:
        features: float (N, C).
        probabilities: float (N, K).

    Returns:
        int64 (N,), class indices.

    Source: SHOT, Liang et al., ICML 2020, Sec. 3.3, with cosine distance and one refinement as published.
    """
    directions = normalize(torch.cat([features, torch.ones(len(features), 1)], dim=1), dim=1)
    labels = _nearest(directions, probabilities)
    return _nearest(directions, one_hot(labels, probabilities.shape[1]).to(directions.dtype))


def _nearest(directions: Tensor, weights: Tensor) -> Tensor:
    """Return the class of the nearest centre; a class of no weight has none."""
    centres = normalize(weights.T @ directions, dim=1)  # (K, C)
    closeness = directions @ centres.T
    return closeness.masked_fill(weights.sum(dim=0) == 0, -torch.inf).argmax(dim=1)


def class_evidence(logits: Tensor, foreground_share: Tensor | None, background_class_idx: int | None) -> Tensor:
    """Return what speaks for each class in each image, beside what speaks for it in the mean image: float (N, K).

    By the image head that is its logit. By pixels it is how much foreground an image has, against the background
    class and for all others, among which the image head decides.

    Args:
        logits: float (N, K).
        foreground_share: float (N,) in [0, 1], the share of the image's map that is foreground; None: by the head.
        background_class_idx: the class without foreground; needed for pixels.
    """
    centred = logits - logits.mean(dim=0)
    if foreground_share is None or background_class_idx is None:
        return centred
    deviation = foreground_share - foreground_share.mean()
    pixels = deviation / deviation.std().clamp_min(torch.finfo(deviation.dtype).tiny)
    others = [index for index in range(logits.shape[1]) if index != background_class_idx]
    found = torch.empty_like(centred)
    found[:, background_class_idx] = -pixels
    found[:, others] = pixels.unsqueeze(1) + centred[:, others] - centred[:, others].mean(dim=1, keepdim=True)
    return found


def surest_labels(evidence: Tensor, *, share: float) -> Tensor:
    """Give the surest images of every class its label, as many of each, and the others none.

    An image is as sure of a class as its evidence is above that for the next best. That every class gets as many says
    that the domain is taken to hold as many of each.

    Args:
        evidence: float (N, K).
        share: of the images that get a label, in (0, 1).
    """
    count, classes = evidence.shape
    best = evidence.topk(2, dim=1)
    rivals = torch.where(best.indices[:, :1] == torch.arange(classes), best.values[:, 1:], best.values[:, :1])
    sureness = evidence - rivals  # (N, K)
    labels = torch.full((count,), NO_LABEL)
    each = max(1, round(share * count / classes))
    for class_idx in range(classes):
        free = torch.nonzero(labels == NO_LABEL).squeeze(1)
        chosen = free[sureness[free, class_idx].argsort(descending=True, stable=True)[:each]]
        labels[chosen] = class_idx
    return labels


def unlearning_labels(probabilities: Tensor, *, share: float) -> Tensor:
    """Let the least sure images of the over-predicted class unlearn it, and the others keep what is predicted.

    Over-predicted is the class that most images are predicted as, by as many as are above an even share: where
    predictions are evenly divided, no image unlearns.

    Args:
        probabilities: float (N, K).
        share: of all images that unlearn at most.

    Source: the idea of SFDA-DeP, arXiv 2603.12468; that an even share is the measure is this project's reading.
    """
    count, classes = probabilities.shape
    predicted = probabilities.argmax(dim=1)
    counts = predicted.bincount(minlength=classes)
    over_predicted = int(counts.argmax())
    excess = int(counts[over_predicted]) - math.ceil(count / classes)
    candidates = torch.nonzero(predicted == over_predicted).squeeze(1)
    unsure = entropy(probabilities[candidates]).argsort(descending=True, stable=True)
    chosen = candidates[unsure[: min(max(1, round(share * count)), max(0, excess))]]
    return predicted.index_fill(0, chosen, UNLEARN - over_predicted)
