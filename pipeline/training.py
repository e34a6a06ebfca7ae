"""The one training loop, for the teacher and for PixelCAM: plain gradient descent on Lightning Fabric."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from pipeline.config import OptimizerName, Schedule, Selection, TrainingParams
from pipeline.console import progress_bar
from pipeline.devices import describe_device
from pipeline.errors import PixelCAMError
from pipeline.localization import EvaluationBatch
from pipeline.seeding import make_generator
from pipeline.training_set import TrainingBatch, TrainingSet

State = dict[str, Tensor]


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step.

    Attributes:
        total: scalar to descend.
        parts: scalars by name, for the history.
        image_logits: float (B, K), for the training accuracy.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    image_logits: Tensor


class Objective(Protocol):
    """Compute a model's losses on a batch; random draws come from the generator, on the batch's device."""

    def __call__(self, model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses: ...  # noqa: D102 - the class says it


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves.

    Attributes:
        selected: the weights of the selected epoch, on the CPU.
        last: the weights at the end, on the CPU.
        selected_epoch: which epoch was selected, from 1.
        history: one row per epoch: epoch, step, losses by name, train_accuracy, val_loss, val_accuracy, learning_rate.
        device: what it ran on, in words.
    """

    selected: State
    last: State
    selected_epoch: int
    history: pd.DataFrame
    device: str


def fit(
    model: nn.Module,
    objective: Objective,
    *,
    training_set: TrainingSet,
    validation: Iterable[EvaluationBatch],
    params: TrainingParams,
    seed: int,
    fabric: Fabric,
    label: str,
) -> TrainingResult:
    """Train a model for `params.steps` batches and validate it after each epoch.

    Args:
        model: has an `encoder`, whose learning rate is its own; gives an output with `image_logits`.
        objective: the losses of a batch.
        training_set: where batches come from.
        validation: batches of the validation images; empty where there are none.
        params: steps, batch size, optimizer, schedule, selection.
        seed: of the order, the augmentation and the drawn pixels.
        fabric: device and precision.
        label: name on the progress bar.

    Raises:
        PixelCAMError: no training image, a selection that needs validation images where there are none, or a loss that
            is no longer a finite number.
    """
    validation = list(validation)
    _check_data(training_set, validation, params)
    optimizer = make_optimizer(model, params)
    schedule = make_schedule(optimizer, params)
    wrapped, optimizer = fabric.setup(model, optimizer)
    generator = make_generator(seed, "draw", device=fabric.device)
    history: list[dict[str, float]] = []
    selected, selected_epoch, best_rank = _state_of(model), 0, math.inf
    with progress_bar(total=params.steps, label=label) as bar:
        for epoch, batches in enumerate(_epochs(training_set, params), start=1):
            wrapped.train()
            tally = _Tally()
            for batch in batches:
                on_device = batch.to(fabric.device)
                losses = objective(wrapped, on_device, generator)
                fabric.backward(losses.total)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                tally.add({**losses.parts, "train_accuracy": _hit_rate(losses.image_logits, on_device.class_idx)})
                bar.update()
            row = tally.means() | validate(wrapped, validation, fabric.device)
            _check_finite(row, label=label, epoch=epoch)
            steps = (history[-1]["step"] if history else 0) + tally.count
            history.append({"epoch": epoch, "step": steps, **row, "learning_rate": float(schedule.get_last_lr()[0])})
            bar.set_postfix({name: f"{value:.3f}" for name, value in row.items()})
            rank = _rank(row, params.selection)
            if rank <= best_rank:
                selected, selected_epoch, best_rank = _state_of(model), epoch, rank
    last = _state_of(model)
    _check_finite({name: float(tensor.float().sum()) for name, tensor in last.items()}, label=label, epoch=len(history))
    return TrainingResult(selected, last, selected_epoch, pd.DataFrame(history), describe_device(fabric))


@torch.inference_mode()
def validate(model: nn.Module, batches: Iterable[EvaluationBatch], device: torch.device) -> dict[str, float]:
    """Return `val_loss` and `val_accuracy` of the image classifier; nothing where there are no batches."""
    model.eval()
    loss, hits, count = 0.0, 0.0, 0
    for batch in batches:
        class_idx = batch.class_idx.to(device)
        logits = model(batch.images.to(device)).image_logits.float()
        loss += float(cross_entropy(logits, class_idx, reduction="sum"))
        hits += float(_hit_rate(logits, class_idx)) * len(class_idx)
        count += len(class_idx)
    return {"val_loss": loss / count, "val_accuracy": hits / count} if count else {}


def make_optimizer(model: nn.Module, params: TrainingParams) -> torch.optim.Optimizer:
    """Make the optimizer, with the heads, which start from nothing, at a learning rate of their own."""
    encoder = list(model.encoder.parameters())  # type: ignore[union-attr]
    in_encoder = {id(parameter) for parameter in encoder}
    heads = [parameter for parameter in model.parameters() if id(parameter) not in in_encoder]
    groups = [
        {"params": encoder, "lr": params.learning_rate},
        {"params": heads, "lr": params.head_learning_rate},
    ]
    match params.optimizer:
        case OptimizerName.ADAMW:
            return torch.optim.AdamW(groups, weight_decay=params.weight_decay)
        case OptimizerName.SGD:
            return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=params.weight_decay)


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


class _Tally:
    """Means of scalars over an epoch, kept on their device until asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor]) -> None:
        self.count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.count for name, total in self._sums.items()}


def _epochs(training_set: TrainingSet, params: TrainingParams) -> Iterator[Iterator[TrainingBatch]]:
    """Yield the batches of one epoch after the other, `params.steps` in all, so that the last epoch may be short."""
    per_epoch = training_set.batch_count(params.batch_size)
    for done in range(0, params.steps, per_epoch):
        batches = training_set.batches(done // per_epoch + 1, params.batch_size)
        yield islice(batches, params.steps - done)


def _hit_rate(logits: Tensor, class_idx: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == class_idx).float().mean()


def _rank(row: dict[str, float], selection: Selection) -> float:
    """Return what the selected epoch has least of; among equals the later epoch is taken."""
    match selection:
        case Selection.LAST:
            return 0.0
        case Selection.VAL_ACCURACY:
            return -row["val_accuracy"]
        case Selection.VAL_LOSS:
            return row["val_loss"]


def _state_of(model: nn.Module) -> State:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _check_data(training_set: TrainingSet, validation: list[EvaluationBatch], params: TrainingParams) -> None:
    if len(training_set) == 0:
        raise PixelCAMError("the source domain has no training image; give some the split 'train'")
    if not validation and params.selection is not Selection.LAST:
        raise PixelCAMError(
            f"selection: '{params.selection}' needs validation images and the source domain has none; use 'last'"
        )


def _check_finite(row: dict[str, float], *, label: str, epoch: int) -> None:
    for name, value in row.items():
        if not math.isfinite(value):
            raise PixelCAMError(
                f"{label}: {name} became {value} in epoch {epoch}; lower learning_rate and head_learning_rate"
            )
