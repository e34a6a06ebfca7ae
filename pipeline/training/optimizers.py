"""What descends a loss: which weights learn, with which learning rate, by which optimizer, and how the rates change."""

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from pipeline.params.config import TrainingParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import Frozen, OptimizerName, Schedule


def freeze_encoder(model: nn.Module, frozen: Frozen) -> None:
    """Freeze what is to stay as it is of a model's `encoder`; before its optimizer is made."""
    if frozen is not Frozen.NOTHING:
        model.encoder.freeze(frozen)  # type: ignore[union-attr, operator]


def make_optimizer(model: nn.Module, params: TrainingParams) -> torch.optim.Optimizer:
    """Make the optimizer of all trainable weights, with the heads, which start from nothing, at a rate of their own.

    The encoder comes first: one group, or with a `layer_decay` below 1 one for each of its layer groups from the last
    down, whose rates fall by that factor from `learning_rate`.

    Args:
        model: has an `encoder`.
        params: optimizer, learning rates, layer and weight decay.

    Raises:
        PixelCAMError: nothing of the model is trainable, or the encoder has no layer groups.
    """
    encoder = model.encoder
    in_encoder = {id(weight) for weight in encoder.parameters()}  # type: ignore[union-attr]
    heads = [weight for weight in model.parameters() if id(weight) not in in_encoder]
    layers = [list(encoder.parameters())] if params.layer_decay == 1 else encoder.layer_groups()  # type: ignore[union-attr, operator]
    rates = [params.learning_rate * params.layer_decay**depth for depth in range(len(layers))]
    groups = []
    for weights, rate in zip([*layers, heads], [*rates, params.head_learning_rate], strict=True):
        trainable = [weight for weight in weights if weight.requires_grad]
        if trainable:
            groups.append({"params": trainable, "lr": rate})
    if not groups:
        raise PixelCAMError("frozen: nothing of the model is left to train; freeze less")
    match params.optimizer:
        case OptimizerName.ADAMW:
            return torch.optim.AdamW(groups, weight_decay=params.weight_decay, fused=True)
        case OptimizerName.SGD:
            return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=params.weight_decay, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, params: TrainingParams) -> LRScheduler:
    """Make the learning-rate schedule over `params.steps` batches; each group's rate is its peak.

    One cycle also lowers the momentum (AdamW: beta1) from 0.95 to 0.85 while the rate rises, and raises it again after.
    """
    match params.schedule:
        case Schedule.ONE_CYCLE:
            peaks = [group["lr"] for group in optimizer.param_groups]
            return OneCycleLR(optimizer, max_lr=peaks, total_steps=params.steps + 1)
        case Schedule.COSINE:
            return CosineAnnealingLR(optimizer, T_max=params.steps)
        case Schedule.CONSTANT:
            return LambdaLR(optimizer, lambda _: 1.0)
