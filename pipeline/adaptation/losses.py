"""Losses of images without labels, or with those that a model gave them; means over the batch of all processes."""

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.runtime.collectives import joint_mean, part_of_mean

NO_LABEL: Final = -1  # of an image whose class nobody says
UNLEARN: Final = -2  # and below: of an image that is to unlearn a class, UNLEARN - class_idx


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy of each row in nats: float (N, K) -> (N,)."""
    least = torch.finfo(probabilities.dtype).tiny
    return (probabilities * probabilities.clamp_min(least).log()).sum(dim=1).neg()


def mean_entropy(logits: Tensor) -> Tensor:
    """Return how unsure a model is of its images on the mean, scalar of float (B, K). Source: Tent, ICLR 2021."""
    return entropy(logits.softmax(dim=1)).mean()


def marginal_entropy(logits: Tensor) -> Tensor:
    """Return how evenly a batch is divided among the classes, scalar: the entropy of its mean probabilities."""
    return entropy(joint_mean(logits.softmax(dim=1).mean(dim=0, keepdim=True))).squeeze(0)


def labelled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the images that have a label, int64 (B,) >= 0; 0 where none has."""
    has_label = labels >= 0
    total = cross_entropy(logits, labels.where(has_label, NO_LABEL), ignore_index=NO_LABEL, reduction="sum")
    return part_of_mean(total / has_label.sum().clamp_min(1), over=has_label.sum())


def unlearning_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log(1 - p) over the images that are to unlearn a class of probability p; 0 where none is.

    Computed from logits, so that what is all but certain is unlearned with a gradient of 1 and not of 0.

    Source: SFDA-DeP, arXiv 2603.12468.
    """
    chosen = labels <= UNLEARN
    class_idx = (UNLEARN - labels).clamp_min(0)
    others = logits.scatter(1, class_idx.unsqueeze(1), -torch.inf)
    losses = logits.logsumexp(dim=1) - others.logsumexp(dim=1)
    return part_of_mean((losses * chosen).sum() / chosen.sum().clamp_min(1), over=chosen.sum())
