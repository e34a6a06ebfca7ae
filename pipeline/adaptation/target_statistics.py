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

    Means and variances are the averages of those of the batches, each batch weighing as much as it has images. Of
    batches of one size that is what batch norm computes with momentum None. The variance of a batch is the unbiased
    one, so what differs between batches only is not in it: batches should hold images of all kinds.

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
    seen = 0
    with torch.no_grad():
        for batch in images:
            seen += len(batch)
            for layer in norms:
                layer.momentum = len(batch) / seen
            adapted(batch.to(device))
    if seen == 0:
        raise PixelCAMError(
            f"{asked_by}: statistics of batch norm need images of the domain, and there are none; its manifest must "
            "list some, or choose another option"
        )
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return adapted.eval()
