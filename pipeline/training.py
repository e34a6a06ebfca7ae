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
from torch.optim.lr_scheduler import LRScheduler

from pipeline.choices import Selection
from pipeline.config import TrainingParams
from pipeline.console import progress_bar
from pipeline.devices import describe_device
from pipeline.errors import PixelCAMError
from pipeline.localization import EvaluationBatch, Localizer
from pipeline.optimizers import freeze_encoder, make_optimizer, make_schedule
from pipeline.pixel_histogram import empty_histogram, pxap, update_histogram
from pipeline.resizing import resize_map
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
class Kept:
    """The weights of an epoch, counted from 1, on the CPU."""

    epoch: int
    state: State


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves.

    Attributes:
        kept: the weights that each selection asked for has chosen.
        selection: which of them is the model.
        history: one row per epoch: epoch, step, losses by name, train_accuracy, val_loss, val_accuracy,
            learning_rate; val_pxap where it is asked for.
        device: what it ran on, in words.
    """

    kept: dict[Selection, Kept]
    selection: Selection
    history: pd.DataFrame
    device: str

    @property
    def selected(self) -> Kept:
        """The weights that are the model."""
        return self.kept[self.selection]


def fit(
    model: nn.Module,
    objective: Objective,
    *,
    training_set: TrainingSet,
    validation: Iterable[EvaluationBatch],
    localizer: Localizer,
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
        localizer: the model as a localizer, for the selection by PxAP.
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
    freeze_encoder(model, params.frozen)
    optimizer = make_optimizer(model, params)
    schedule = make_schedule(optimizer, params)
    wrapped, optimizer = fabric.setup(model, optimizer)
    generator = make_generator(seed, "draw", device=fabric.device)
    history: list[dict[str, float]] = []
    keeper = _Keeper(wanted_selections(params))
    with progress_bar(total=params.steps, label=label) as bar:
        for epoch, batches in enumerate(_epochs(training_set, params), start=1):
            wrapped.train()
            tally = _Tally()
            for batch in batches:
                on_device = batch.to(fabric.device)
                losses = objective(wrapped, on_device, generator)
                fabric.backward(losses.total)
                _descend(optimizer, schedule)
                tally.add({**losses.parts, "train_accuracy": _hit_rate(losses.image_logits, on_device.class_idx)})
                bar.update()
            row = tally.means() | validate(wrapped, validation, fabric.device)
            if Selection.VAL_PXAP in keeper.selections:
                row["val_pxap"] = localization_score(localizer, validation, fabric.device)
            _check_finite(row, label=label, epoch=epoch)
            step = sum(row["step"] for row in history[-1:]) + tally.count
            history.append({"epoch": epoch, "step": step, **row, "learning_rate": float(schedule.get_last_lr()[0])})
            bar.set_postfix({name: f"{value:.3f}" for name, value in row.items()})
            keeper.see(model, row, epoch)
    _check_finite(_sums_of(model), label=label, epoch=len(history))
    return TrainingResult(keeper.kept, params.selection, pd.DataFrame(history), describe_device(fabric))


def _descend(optimizer: torch.optim.Optimizer, schedule: LRScheduler) -> None:
    """Take one step along the gradients and forget them."""
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()


def wanted_selections(params: TrainingParams) -> set[Selection]:
    """Return the selections whose weights a training keeps."""
    return {params.selection, *params.keep}


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


def localization_score(localizer: Localizer, batches: Iterable[EvaluationBatch], device: torch.device) -> float:
    """Return the PxAP of a model's maps on the validation images whose masks may be used, at the size of the masks."""
    histogram = empty_histogram(device=device)
    for batch in batches:
        if batch.has_mask.any():
            maps = localizer(batch.images.to(device), batch.class_idx.to(device)).maps
            maps = resize_map(maps.float(), batch.masks.shape[-2:]).clamp(0, 1)[batch.has_mask.to(device)]
            ignore = None if batch.ignore is None else batch.ignore[batch.has_mask].to(device)
            target = batch.masks[batch.has_mask].to(device)
            histogram = update_histogram(histogram, preds=maps, target=target, ignore=ignore)
    return pxap(histogram)


class _Keeper:
    """Keep the weights of the best epoch for each of several selections."""

    def __init__(self, selections: set[Selection]) -> None:
        self.selections = sorted(selections)
        self.kept: dict[Selection, Kept] = {}
        self._best = dict.fromkeys(self.selections, math.inf)

    def see(self, model: nn.Module, row: dict[str, float], epoch: int) -> None:
        """Copy the weights if this epoch is as good as the best so far, or better, for any selection."""
        better = [selection for selection in self.selections if _rank(row, selection) <= self._best[selection]]
        state = _state_of(model) if better else {}
        for selection in better:
            self._best[selection] = _rank(row, selection)
            self.kept[selection] = Kept(epoch, state)


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
        case Selection.VAL_PXAP:
            return -row["val_pxap"]


def _state_of(model: nn.Module) -> State:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _sums_of(model: nn.Module) -> dict[str, float]:
    """Return the sum of each of a model's tensors, which is finite only if all its values are."""
    return {name: float(tensor.float().sum()) for name, tensor in model.state_dict().items()}


def _check_data(training_set: TrainingSet, validation: list[EvaluationBatch], params: TrainingParams) -> None:
    if len(training_set) == 0:
        raise PixelCAMError("the source domain has no training image; give some the split 'train'")
    needs_images = sorted(wanted_selections(params) - {Selection.LAST})
    if needs_images and not validation:
        raise PixelCAMError(
            f"selection, keep: '{needs_images[0]}' needs validation images and the source domain has none; use 'last'"
        )
    has_foreground = any(bool(batch.masks[batch.has_mask].any()) for batch in validation)
    if Selection.VAL_PXAP in needs_images and not has_foreground:
        raise PixelCAMError(
            "selection, keep: 'val_pxap' needs validation images with masks that may be used for selection, and the "
            "source domain has none; choose another selection"
        )


def _check_finite(row: dict[str, float], *, label: str, epoch: int) -> None:
    for name, value in row.items():
        if not math.isfinite(value):
            raise PixelCAMError(
                f"{label}: {name} became {value} in epoch {epoch}; lower learning_rate and head_learning_rate"
            )
