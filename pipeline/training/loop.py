"""The one training loop, for the teacher and for PixelCAM: plain gradient descent on Lightning Fabric."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn, Protocol

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.data.maps import EvaluationBatch, Localizer, resize_map
from pipeline.data.training_set import TrainingBatch, TrainingSet
from pipeline.metrics.pixel_histogram import count_batch, empty_histogram, join, pxap
from pipeline.params.config import TrainingParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import Selection
from pipeline.runtime.collectives import average, copy_from_first, interleaved, wait_for_all
from pipeline.runtime.console import progress_bar, say
from pipeline.runtime.devices import CompiledModel, describe_device, to_device
from pipeline.runtime.processes import count, first_to_fail, is_first
from pipeline.runtime.seeding import make_generator
from pipeline.runtime.torchvision_operators import ensure_torchvision_imports
from pipeline.training.checkpoints import (
    STOPPED,
    Checkpoint,
    Criterion,
    Keeper,
    Kept,
    TrainingState,
    fingerprint_of,
    noticing_termination,
)
from pipeline.training.optimizers import freeze_encoder, make_optimizer, make_schedule

ensure_torchvision_imports()
from timm.layers.norm_act import convert_sync_batchnorm  # noqa: E402 - after torchvision can be imported


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step.

    Attributes:
        total: scalar to descend.
        parts: scalars by name, for the history.
        image_logits: float (B, K), for the training accuracy; None where a batch has no labels to compare with.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    image_logits: Tensor | None


class Objective(Protocol):
    """Compute a model's losses on a batch; random draws come from the generator, on the batch's device."""

    def __call__(self, model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses: ...  # noqa: D102 - the class says it


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves.

    Attributes:
        kept: the weights that each criterion asked for has chosen.
        selection: which of them is the model.
        history: one row per epoch: epoch, step, losses by name, train_accuracy, val_loss, val_accuracy,
            learning_rate; val_pxap where it is asked for.
        device: what it ran on, in words.
        checkpoint: the training's last state, to be removed when all this is on disk.
    """

    kept: dict[Criterion, Kept]
    selection: Criterion
    history: pd.DataFrame
    device: str
    checkpoint: Checkpoint

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
    checkpoints: Path,
    label: str,
) -> TrainingResult:
    """Train a model for `params.steps` batches and validate it after each epoch.

    Args:
        model: has an `encoder`, whose learning rate is its own; gives an output with `image_logits`.
        objective: the losses of a batch.
        training_set: where batches come from.
        validation: batches of the validation images, of several processes this one's share, to be iterated any number
            of times; may be empty.
        localizer: the model as a localizer, for the selection by PxAP.
        params: of the training.
        seed: of the order, the augmentation and the drawn pixels.
        fabric: device and precision.
        checkpoints: folder for the state after each epoch and at SIGTERM, from which the same training goes on.
        label: name on the progress bar.

    Raises:
        PixelCAMError: no training image, none to select by, a loss that is not finite, or a damaged checkpoint.
        SystemExit: SIGTERM came; the state is on disk.
    """
    _check_data(training_set, validation, params)
    model = _with_joint_batch_norm(model, fabric)
    freeze_encoder(model, params.frozen)
    optimizer = make_optimizer(model, params)
    determined_by = [params.model_dump(mode="json"), training_set.describe(), seed, describe_device(fabric)]
    checkpoint = Checkpoint(checkpoints, fingerprint_of(model, determined_by))
    draws = make_generator(seed, "draw", device=fabric.device)
    state = TrainingState(model, optimizer, make_schedule(optimizer, params), draws, Keeper(wanted_selections(params)))
    wrapped, wrapped_optimizer = fabric.setup(CompiledModel(model) if params.compile else model, optimizer)
    take_step = Stepper(wrapped, wrapped_optimizer, objective, state, fabric)
    checkpoint.load(state)
    descend(
        take_step,
        steps=params.steps,
        batches=lambda: training_set.batches(
            state.epoch, params.batch_size, first=state.tally.count, device=fabric.device
        ),
        score=lambda: _score_epoch(state, validation, localizer, fabric, label),
        checkpoint=checkpoint,
        label=label,
    )
    check_finite(_sums_of(model), label=label, epoch=len(state.history))
    history = pd.DataFrame(state.history)
    return TrainingResult(state.keeper.kept, params.selection, history, describe_device(fabric), checkpoint)


def descend(
    take_step: "Stepper",
    *,
    steps: int,
    batches: Callable[[], Iterator[TrainingBatch]],
    score: Callable[[], dict[str, float]],
    checkpoint: Checkpoint,
    label: str,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Take steps, epoch after epoch, and leave the state on disk after each epoch and at SIGTERM.

    Args:
        take_step: takes one; its state says how far the training is.
        steps: how many in all; the last epoch may be short.
        batches: returns the batches of the epoch under way that are not done yet.
        score: returns the scores of an epoch that has come to its end.
        checkpoint: where the state is left.
        label: name on the progress bar.
        is_over: says after each epoch whether that was one too many, whose weights are not kept.

    Raises:
        SystemExit: SIGTERM came; the state is on disk.
    """
    state = take_step.state
    wait_for_all()  # so that nobody removes what another still reads
    with progress_bar(total=steps, label=label, done=state.step) as bar, noticing_termination() as asked_to_stop:
        while (state.step < steps or state.tally.count) and not is_over():
            remaining = batches()
            take_step.model.train()
            for batch in islice(remaining, steps - state.step):
                take_step(batch)
                bar.update()
                if asked_to_stop.is_set() and is_first():
                    _stop(checkpoint, state, label)
            row = score()
            bar.set_postfix({name: f"{value:.3f}" for name, value in row.items()})
            state.end_epoch(row)
            if not is_over():
                state.keep_best()
            if is_first():
                checkpoint.save(state)


def _score_epoch(
    state: TrainingState, validation: Iterable[EvaluationBatch], localizer: Localizer, fabric: Fabric, label: str
) -> dict[str, float]:
    """Return the scores of the epoch that has come to its end, in training and on the validation images."""
    copy_from_first(state.model.buffers())
    with fabric.autocast():  # not through Fabric's wrapper: processes may have batches in different number
        row = state.tally.means() | validate(state.model, validation, fabric.device)
    check_finite(row, label=label, epoch=state.epoch)
    if Selection.VAL_PXAP in state.keeper.criteria:
        row["val_pxap"] = localization_score(localizer, validation, fabric.device)
    return row


def _stop(checkpoint: Checkpoint, state: TrainingState, label: str) -> NoReturn:
    """Leave the state on disk and end the process, as SIGTERM asks for, and with it those that wait for it."""
    first_to_fail()  # so that the others end without a word
    checkpoint.save(state)
    say(f"{label}: stopped after step {state.step}; run the same command again to go on")
    raise SystemExit(STOPPED)


@dataclass(frozen=True)
class Stepper:
    """One step along the gradients of a batch; model and optimizer are Fabric's wrappers of those in the state."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    state: TrainingState
    fabric: Fabric

    def __call__(self, batch: TrainingBatch) -> None:
        """Take the step and count the losses; the batch is on the device."""
        losses = self.objective(self.model, batch, self.state.generator)
        self.fabric.backward(losses.total)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.schedule.step()
        parts = dict(losses.parts)
        if losses.image_logits is not None:
            parts["train_accuracy"] = _hit_rate(losses.image_logits, batch.class_idx)
        means = average(torch.stack([value.detach().float() for value in parts.values()]))
        self.state.tally.add(dict(zip(parts, means, strict=True)))


def wanted_selections(params: TrainingParams) -> set[Selection]:
    """Return the selections whose weights a training keeps."""
    return {params.selection, *params.keep}


@torch.inference_mode()
def validate(model: nn.Module, batches: Iterable[EvaluationBatch], device: torch.device) -> dict[str, float]:
    """Return `val_loss` and `val_accuracy` of the image classifier; nothing where there are no batches.

    Of several processes each is given its share of the batches, and returns the values of all.
    """
    model.eval()
    scored: list[Tensor] = []  # loss and hit rate of each batch, on the device until all are done
    sizes: list[int] = []
    for batch in batches:
        class_idx = to_device(batch.class_idx, device)
        logits = model(to_device(batch.images, device)).image_logits.float()
        scored.append(torch.stack([cross_entropy(logits, class_idx, reduction="sum"), _hit_rate(logits, class_idx)]))
        sizes.append(len(class_idx))
    found = torch.stack(scored).tolist() if scored else []
    sums = [(loss, hits * images, images) for (loss, hits), images in zip(found, sizes, strict=True)]
    loss, hits, images = (sum(values) for values in zip((0.0, 0.0, 0), *interleaved(sums), strict=True))
    return {"val_loss": loss / images, "val_accuracy": hits / images} if images else {}


def localization_score(localizer: Localizer, batches: Iterable[EvaluationBatch], device: torch.device) -> float:
    """Return the PxAP of a model's maps on the validation images whose masks may be used, at the size of the masks."""
    histogram = empty_histogram(device=device)
    for batch in batches:
        if batch.has_mask.any():
            maps = localizer(to_device(batch.images, device), to_device(batch.class_idx, device)).maps
            maps = resize_map(maps.float(), batch.masks.shape[-2:]).clamp(0, 1)
            histogram = count_batch(histogram, maps=maps, batch=batch)
    return pxap(join(histogram))


def _hit_rate(logits: Tensor, class_idx: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == class_idx).float().mean()


def _sums_of(model: nn.Module) -> dict[str, float]:
    """Return the sum of each of a model's tensors, which is finite only if all its values are."""
    return {name: float(tensor.float().sum()) for name, tensor in model.state_dict().items()}


def _with_joint_batch_norm(model: nn.Module, fabric: Fabric) -> nn.Module:
    """Let batch norm measure the whole batch instead of each process's share, on GPUs; torch cannot elsewhere."""
    if count() == 1 or fabric.device.type != "cuda":
        return model
    # timm's own, since its norms hold activations that torch's would leave out.
    converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def check_shares(images: int, *, batch_size: int) -> None:
    """Raise a `PixelCAMError` where a batch of so many images cannot be shared evenly by the processes there are."""
    together = min(batch_size, images)
    if together % count():
        raise PixelCAMError(
            f"batch_size: a batch of {together} images cannot be shared evenly by {count()} processes; take a number "
            "of processes that divides it, or change batch_size to a multiple of theirs (the result changes with it)"
        )


def _check_data(training_set: TrainingSet, validation: Iterable[EvaluationBatch], params: TrainingParams) -> None:
    if len(training_set) == 0:
        raise PixelCAMError("the domain to train on has no training image; give some the split 'train'")
    labels = {row.class_idx: row.label for row in training_set.images.manifest.rows}
    if len(labels) == 1:
        raise PixelCAMError(
            f"all training images of the domain to train on are '{next(iter(labels.values()))}', and a classifier "
            "learns from two classes or more; mend the labels or the split and prepare the domain again"
        )
    check_shares(len(training_set), batch_size=params.batch_size)
    # Of all processes, and gone through once: a batch is not kept.
    has_foreground = interleaved([bool(batch.masks[batch.has_mask].any()) for batch in validation])
    needs_images = sorted(wanted_selections(params) - {Selection.LAST})
    if needs_images and not has_foreground:
        raise PixelCAMError(
            f"selection, keep: '{needs_images[0]}' needs validation images and the domain to train on has none; "
            "use 'last'"
        )
    if Selection.VAL_PXAP in needs_images and not any(has_foreground):
        raise PixelCAMError(
            "selection, keep: 'val_pxap' needs validation images with masks that may be used for selection, and the "
            "domain to train on has none; choose another selection"
        )


def check_finite(row: dict[str, float], *, label: str, epoch: int) -> None:
    """Raise a `PixelCAMError` where a score of an epoch is NaN or infinite."""
    for name, value in row.items():
        if not math.isfinite(value):
            raise PixelCAMError(
                f"{label}: {name} became {value} in epoch {epoch}; lower learning_rate and head_learning_rate"
            )
