"""The methods that learn by steps, on the one training loop: images labelled, epochs watched, the best one kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final

from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.adaptation.methods import METHODS, AdaptationObjective, Evidence, Method, choose_weights
from pipeline.adaptation.own_pixels import OwnPixelLabels, foreground_shares
from pipeline.adaptation.reading import Reading, read_images
from pipeline.adaptation.target_statistics import measured_norms
from pipeline.adaptation.watching import Watched, fell, from_row, watch
from pipeline.data.manifest import Manifest, PreparedDomain
from pipeline.data.scored_set import ScoredSet
from pipeline.data.training_set import TrainingBatch, TrainingSet
from pipeline.data.unlabelled import UnlabelledDomain
from pipeline.models.files import ModelInfo
from pipeline.models.pixelcam import PixelCAM
from pipeline.models.teacher import Teacher
from pipeline.params import vocabulary
from pipeline.params.adaptation import AdaptationParams
from pipeline.params.config import AugmentationParams, Params, PixelCAMParams
from pipeline.params.vocabulary import AdaptationMethod, Frozen, PixelClasses, Selection, UnsupervisedScore
from pipeline.pseudo_labels.extraction import extract_from
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.runtime.console import say
from pipeline.runtime.devices import describe_device
from pipeline.runtime.seeding import make_generator
from pipeline.training.checkpoints import Checkpoint, Keeper, Kept, TrainingState, fingerprint_of
from pipeline.training.loop import Stepper, check_finite, check_shares, descend
from pipeline.training.optimizers import make_optimizer, make_schedule
from pipeline.training.pixelcam import PixelCAMObjective

WATCHED: Final = 4  # times at least that a model is looked at while it learns, however many images there are
COLOURS: Final = ("brightness", "contrast", "saturation", "hue", "stain", "blur")  # what of a view is no geometry


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A model that is to be adapted to a domain.

    Attributes:
        model: on its device.
        info: what it is.
        made_by: the SHA-256 of its weights.
        target: the domain, which knows no label.
        images: its images as the model takes them.
        adaptation: how.
        params: all parameters.
        fabric: device and precision.
        states: folder for what is under way.
    """

    model: Teacher | PixelCAM
    info: ModelInfo
    made_by: str
    target: UnlabelledDomain
    images: ScoredSet
    adaptation: AdaptationParams
    params: Params
    fabric: Fabric
    states: Path

    @property
    def manifest(self) -> Manifest:
        """The images, every one of class 0 for want of labels."""
        return self.images.manifest

    @property
    def learns_pixels(self) -> bool:
        """Whether there is a pixel head with a loss of its own."""
        return isinstance(self.model, PixelCAM) and self.adaptation.pixel_loss_weight > 0

    @property
    def sees_pixels(self) -> bool:
        """Whether images are labelled by PixelCAM's maps; a teacher has none that would be comparable over images."""
        by_pixels = self.adaptation.evidence is vocabulary.Evidence.PIXELS
        needed = self.adaptation.method is AdaptationMethod.SELF_TRAINING
        return by_pixels and needed and isinstance(self.model, PixelCAM)

    @cached_property
    def reading(self) -> Reading:
        """The model on all images, as it came."""
        return read_images(self.model, self.images, self.fabric)


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapted:
    """What adapting left: the weights that were chosen, the course of the epochs from 0 on, and a row for each.

    `by_pixels` says whether images were labelled by their share of foreground.
    """

    kept: Kept
    course: list[Watched]
    rows: list[dict[str, float]]
    info: ModelInfo
    checkpoint: Checkpoint
    by_pixels: bool = False


def learn(task: Task, first: Watched, *, source: nn.Module) -> Adapted:
    """Adapt the model by steps; of all epochs that of the highest mutual information is kept, epoch 0 among them.

    Args:
        task: what is to be done; its model changes.
        first: what `source` says of the images, epoch 0.
        source: the model as it came, of which `task.model` may differ by its batch norm, or the same object.

    Raises:
        PixelCAMError: processes cannot share a batch, the loss is not finite, or the state on disk is damaged.
    """
    method, section = METHODS[task.adaptation.method], training_params(task)
    check_shares(len(task.images.manifest), batch_size=section.batch_size)
    store = _own_store(task) if task.learns_pixels or task.sees_pixels else None
    shares = foreground_shares(store) if store is not None and task.sees_pixels else None
    if task.sees_pixels and shares is None:
        say(
            f"adapting to {task.target.name}: by the maps of this model all images have the same share of foreground, "
            "so they are labelled by the image head (adaptation.evidence: image_head)"
        )
    labels = _label(method, task, task.reading, shares)
    pixels = None
    if store is not None and task.learns_pixels:
        pixels = _own_pixels(task, store, task.reading.image_logits.argmax(dim=1) if labels is None else labels)
    training_set = _training_set(task, pixels)
    task.model.encoder.freeze(Frozen.BATCH_NORM if measured_norms(task.model.encoder) else Frozen.NOTHING)
    choose_weights(task.model, method, with_pixels=task.learns_pixels)
    optimizer = make_optimizer(task.model, section)
    draws = make_generator(task.params.seed, "adaptation", device=task.fabric.device)
    keeper = Keeper([UnsupervisedScore.MUTUAL_INFORMATION])
    state = TrainingState(task.model, optimizer, make_schedule(optimizer, section), draws, keeper)
    checkpoint = Checkpoint(task.states, _fingerprint(task, training_set))
    keeper.see(source, first.row(), 0)
    checkpoint.load(state)
    wrapped, wrapped_optimizer = task.fabric.setup(task.model, optimizer)
    objective = AdaptationObjective(method, task.adaptation, PixelCAMObjective(section))
    epochs = _Epochs(task, method, training_set, pixels, state, first=first, labels=labels)
    descend(
        Stepper(wrapped, wrapped_optimizer, objective, state, task.fabric),
        steps=section.steps,
        batches=epochs.batches,
        score=epochs.score,
        checkpoint=checkpoint,
        label=f"adapting to {task.target.name}",
        is_over=lambda: fell(epochs.course()),
    )
    return Adapted(
        kept=state.keeper.kept[UnsupervisedScore.MUTUAL_INFORMATION],
        course=epochs.course(),
        rows=[{"epoch": 0, "step": 0, **first.row()}, *state.history],
        info=task.info,
        checkpoint=checkpoint,
        by_pixels=shares is not None,
    )


class _Epochs:
    """The epochs of a method: their batches, labelled by the model where the method says so, and their scores."""

    def __init__(
        self,
        task: Task,
        method: Method,
        training_set: TrainingSet,
        pixels: OwnPixelLabels | None,
        state: TrainingState,
        *,
        first: Watched,
        labels: Tensor | None,
    ) -> None:
        self.task = task
        self.method = method
        self.training_set = training_set
        self.pixels = pixels
        self.state = state
        self.first = first
        self.labels = labels
        self.latest = task.reading if state.step == 0 else None

    def batches(self) -> Iterator[TrainingBatch]:
        """Return the batches of the epoch under way that are not done yet."""
        state = self.state
        if self.method.every_epoch and state.tally.count == 0:
            latest = self.latest or read_images(self.task.model, self.task.images, self.task.fabric)
            labels = _label(self.method, self.task, latest, None)
            state.memory = {} if labels is None else {"labels": labels}
        labels = state.memory.get("labels", self.labels)
        images = self.training_set
        if labels is not None:
            pixels = None if self.pixels is None else self.pixels.with_labels(labels)
            images = images.with_classes(labels.tolist(), pixels)
        size, device = self.task.adaptation.batch_size, self.task.fabric.device
        rest = images.batches(state.epoch, size, first=state.tally.count, device=device)
        return islice(rest, max(1, self.task.adaptation.steps // WATCHED) - state.tally.count)

    def score(self) -> dict[str, float]:
        """Return the losses of the epoch, and what the model now says of all images."""
        self.latest = read_images(self.task.model, self.task.images, self.task.fabric)
        row = self.state.tally.means() | watch(self.latest.probabilities, epoch=self.state.epoch).row()
        check_finite(row, label=f"adapting to {self.task.target.name}", epoch=self.state.epoch)
        return row

    def course(self) -> list[Watched]:
        """Return what was watched so far, epoch 0 first."""
        return [self.first, *map(from_row, self.state.history)]


def training_params(task: Task) -> PixelCAMParams:
    """Return the params of the joint training with what adapting has of its own."""
    own = task.adaptation
    return task.params.train_pixelcam.model_copy(
        update={
            "steps": own.steps,
            "batch_size": own.batch_size,
            "learning_rate": own.learning_rate,
            "head_learning_rate": own.head_learning_rate,
            "selection": Selection.LAST,
            "keep": (),
            "redraw": True,
        }
    )


def _label(method: Method, task: Task, reading: Reading, shares: Tensor | None) -> Tensor | None:
    """Return what a method labels images, int64 (N,); None where labels play no part."""
    if method.label is None:
        return None
    return method.label(Evidence(reading, shares, task.target.background_class_idx), task.adaptation)


def _own_store(task: Task) -> PseudoLabelStore:
    """Return the labels of pixels that the model's own maps give, written beside the states."""
    images = PreparedDomain(task.target.name, task.target.classes, None, task.manifest)
    params = task.params.model_copy(
        update={"model": task.params.model.model_copy(update={"pixel_classes": PixelClasses.FOREGROUND})}
    )
    path = task.states / "own_labels.zarr"
    extract_from(task.model, task.info, images, made_by=task.made_by, params=params, output=path)
    return PseudoLabelStore(path)


def _own_pixels(task: Task, store: PseudoLabelStore, labels: Tensor) -> OwnPixelLabels:
    return OwnPixelLabels(
        store,
        labels,
        background_class_idx=task.target.background_class_idx,
        pixel_classes=task.info.pixel_classes or PixelClasses.FOREGROUND,
    )


def _training_set(task: Task, pixels: OwnPixelLabels | None) -> TrainingSet:
    return TrainingSet(
        task.manifest,
        input_size=task.info.encoder.input_size,
        augmentation=_augmentation(task),
        seed=task.params.seed,
        store=pixels,
    )


def _augmentation(task: Task) -> AugmentationParams:
    """Return how views are taken: as for a training, or in the colours that the images have."""
    own = task.params.augmentation
    return own if task.adaptation.colours else own.model_copy(update=dict.fromkeys(COLOURS, 0.0))


def _fingerprint(task: Task, training_set: TrainingSet) -> str:
    determined_by = [task.adaptation.model_dump(mode="json"), training_params(task).model_dump(mode="json")]
    return fingerprint_of(
        task.model,
        [
            *determined_by,
            training_set.describe(),
            task.target.background_class_idx,
            task.params.seed,
            describe_device(task.fabric),
        ],
    )
