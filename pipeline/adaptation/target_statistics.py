"""Batch norm measured anew on a domain's images: AdaBN ("Revisiting Batch Normalization", arXiv 1603.04779)."""

from collections.abc import Iterable
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.params.errors import PixelCAMError

ModelT = TypeVar("ModelT", bound=nn.Module)


def measured_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a model that normalize by statistics which they have measured."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]


def with_target_statistics(model: ModelT, images: Iterable[Tensor], device: torch.device, *, asked_by: str) -> ModelT:
    """Return a copy of a model whose batch norm holds the mean and variance of a domain's images instead of its own.

    They are those of all images together: the mean of the batches' means, and the mean of their unbiased variances
    plus the variance between their means, each batch weighing as much as it has images. In deep layers a batch has been
    normalized by itself before, so batches should hold images of all kinds: see `ScoredSet.in_random_order`.

    Args:
        model: takes images and normalizes them itself; stays as it is.
        images: batches, float (B, 3, H, W) in [0, 1], at the size that the model is used at.
        device: where the copy is to be.
        asked_by: the parameter that asks for it, for the error.

    Returns:
        The copy, in evaluation mode.

    Raises:
        PixelCAMError: the model has no batch norm with statistics, or there are no images.
    """
    adapted = deepcopy(model).to(device).eval()
    norms = measured_norms(adapted)
    if not norms:
        raise PixelCAMError(
            f"{asked_by}: statistics of batch norm need a model with batch norm, and this one has none; choose another "
            "option, or train an encoder that has it, such as resnet50"
        )
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.train()
        layer.momentum = 1.0  # so that it holds what the last batch has
    moments = [_Moments(layer) for layer in norms]
    seen = 0
    with torch.no_grad():
        for batch in images:
            adapted(batch.to(device))
            seen += len(batch)
            for found in moments:
                found.add(len(batch))
    if seen == 0:
        raise PixelCAMError(
            f"{asked_by}: statistics of batch norm need images of the domain, and there are none; its manifest must "
            "list some, or choose another option"
        )
    for layer, momentum, found in zip(norms, momenta, moments, strict=True):
        layer.momentum = momentum
        found.write()
    return adapted.eval()


class _Moments:
    """First and second moment of what a batch norm sees, float64 (C,), over batches."""

    def __init__(self, layer: _BatchNorm) -> None:
        if layer.running_mean is None or layer.running_var is None:
            raise ValueError("this norm has no statistics, so it measures none")
        self.mean, self.variance = layer.running_mean, layer.running_var
        self.weight = 0
        self.first = torch.zeros_like(self.mean, dtype=torch.float64)
        self.second = torch.zeros_like(self.first)

    def add(self, weight: int) -> None:
        """Count the batch whose mean and variance the norm holds."""
        self.weight += weight
        self.first += weight * self.mean
        self.second += weight * (self.variance.double() + self.mean.double() ** 2)

    def write(self) -> None:
        """Let the norm hold mean and variance of all batches."""
        mean = self.first / self.weight
        self.mean.copy_(mean)
        self.variance.copy_(self.second / self.weight - mean**2)
