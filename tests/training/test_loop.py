"""The training loop: the same weights as a loop written by hand, the right epoch selected, and every refusal."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from tiny import NO_AUGMENTATION, noise_images, write_images
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.data.manifest import Manifest
from pipeline.data.maps import EvaluationBatch, Localization, Localizer
from pipeline.data.training_set import TrainingBatch, TrainingSet
from pipeline.encoders.encoder import build_encoder
from pipeline.params.config import AugmentationParams, TrainingParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import EncoderWeights, Frozen, OptimizerName, Schedule, Selection
from pipeline.training import loop
from pipeline.training.loop import (
    StepLosses,
    TrainingResult,
    fit,
    localization_score,
    validate,
)

PARAMS = TrainingParams(
    steps=6,
    batch_size=4,
    optimizer=OptimizerName.ADAMW,
    learning_rate=0.001,
    head_learning_rate=0.01,
    weight_decay=0.01,
    schedule=Schedule.CONSTANT,
    selection=Selection.LAST,
    keep=(Selection.LAST,),
    frozen=Frozen.NOTHING,
    layer_decay=1.0,
    compile=False,
)
FLIPS = AugmentationParams(
    enlarge=1, flip=True, rotate=True, brightness=0.1, contrast=0, saturation=0, hue=0, stain=0.0, blur=0.0, zoom=0.0
)


class _Output(NamedTuple):
    image_logits: Tensor


class _Net(nn.Module):
    """A convolution as encoder, with batch norm, and a linear head; drawn from a seed."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> _Output:
        return _Output(self.head(self.encoder(images).mean(dim=(2, 3))))


def _objective(model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
    del generator
    logits = model(batch.images).image_logits.float()
    loss = cross_entropy(logits, batch.class_idx)
    return StepLosses(loss, {"image_loss": loss}, logits)


def _fabric(precision: str = "32-true") -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]


def _params(**changes: object) -> TrainingParams:
    return PARAMS.model_copy(update=changes)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Twelve images of two classes: dark noise and bright noise."""
    images = [image // 2 + np.uint8(127 * (number % 2)) for number, image in enumerate(noise_images(12))]
    written = write_images(tmp_path, images)
    rows = tuple(replace(row, class_idx=row.class_idx % 2) for row in written.rows)
    return Manifest(rows, tmp_path)


@pytest.fixture
def training_set(manifest: Manifest) -> TrainingSet:
    return TrainingSet(manifest, input_size=8, augmentation=FLIPS, seed=0)


def _nowhere(images: Tensor, class_idx: Tensor) -> Localization:
    """A localizer that sees nothing anywhere, for selections that ask none."""
    return Localization(torch.zeros(len(class_idx), 2), torch.zeros(len(images), 2, 2))


def _validation(count: int = 3) -> list[EvaluationBatch]:
    generator = torch.Generator().manual_seed(1)
    return [
        EvaluationBatch(
            image_ids=tuple(str(index) for index in range(count)),
            images=torch.rand(count, 3, 8, 8, generator=generator),
            class_idx=torch.arange(count) % 2,
            masks=torch.zeros(count, 1, 1, dtype=torch.bool),
            has_mask=torch.zeros(count, dtype=torch.bool),
        )
    ]


def _fit(
    training_set: TrainingSet,
    params: TrainingParams = PARAMS,
    *,
    model: nn.Module | None = None,
    objective: loop.Objective = _objective,
    validation: Iterable[EvaluationBatch] = (),
    localizer: Localizer = _nowhere,
    fabric: Fabric | None = None,
    seed: int = 0,
) -> TrainingResult:
    with TemporaryDirectory() as folder:
        return _fit_in(Path(folder), training_set, params, model, objective, validation, localizer, fabric, seed)


def _fit_in(
    checkpoints: Path,
    training_set: TrainingSet,
    params: TrainingParams = PARAMS,
    model: nn.Module | None = None,
    objective: loop.Objective = _objective,
    validation: Iterable[EvaluationBatch] = (),
    localizer: Localizer = _nowhere,
    fabric: Fabric | None = None,
    seed: int = 0,
) -> TrainingResult:
    return fit(
        model or _Net(),
        objective,
        training_set=training_set,
        validation=validation,
        localizer=localizer,
        params=params,
        seed=seed,
        fabric=fabric or _fabric(),
        checkpoints=checkpoints,
        label="toy",
    )


def test_the_loss_falls_and_the_classes_are_learned(training_set: TrainingSet) -> None:
    params = _params(steps=60, learning_rate=0.01, head_learning_rate=0.1)
    history = _fit(training_set, params).history
    assert history["image_loss"].iloc[-1] < 0.2 < history["image_loss"].iloc[0]
    assert history["train_accuracy"].iloc[-1] == 1.0


def _rates_by_hand(schedule: Schedule, steps: int) -> list[float]:
    """Return each step's share of the peak rate."""
    if schedule is Schedule.CONSTANT:
        return [1.0] * steps
    return [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]


@pytest.mark.parametrize("schedule", [Schedule.CONSTANT, Schedule.COSINE])
@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_a_loop_written_by_hand_gives_the_same_weights(
    training_set: TrainingSet, optimizer: OptimizerName, schedule: Schedule
) -> None:
    params = _params(steps=7, optimizer=optimizer, schedule=schedule)
    result = _fit(training_set, params)

    model = _Net()
    groups = [{"params": model.encoder.parameters()}, {"params": model.head.parameters()}]
    by_hand: torch.optim.Optimizer
    if optimizer is OptimizerName.ADAMW:
        by_hand = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    else:
        by_hand = torch.optim.SGD(groups, lr=0, momentum=0.9, nesterov=True, weight_decay=0.01, fused=True)
    batches = [batch for epoch in (1, 2, 3) for batch in training_set.batches(epoch, 4)][:7]
    model.train()
    for batch, share in zip(batches, _rates_by_hand(schedule, 7), strict=True):
        for group, peak in zip(by_hand.param_groups, (0.001, 0.01), strict=True):
            group["lr"] = peak * share
        by_hand.zero_grad()
        cross_entropy(model(batch.images).image_logits, batch.class_idx).backward()  # type: ignore[no-untyped-call]
        by_hand.step()
    for name, weights in model.state_dict().items():
        torch.testing.assert_close(result.kept[Selection.LAST].state[name], weights, rtol=1e-5, atol=1e-7)


class _FrozenNet(_Net):
    """The same net on a timm encoder, which can be frozen."""

    def __init__(self) -> None:
        super().__init__()
        weights = EncoderWeights.RANDOM
        encoder = build_encoder("test_efficientnet", input_size=32, output_stride=None, weights=weights, seed=0)
        self.encoder = encoder  # type: ignore[assignment]
        self.head = nn.Linear(encoder.channels, 2)


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize("frozen", list(Frozen))
def test_what_is_frozen_stays_through_all_epochs(training_set: TrainingSet, frozen: Frozen) -> None:
    model = _FrozenNet()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # Two epochs, with a validation in between that puts the model into evaluation mode.
    last = _fit(training_set, _params(frozen=frozen), model=model, validation=_validation()).selected.state
    for name, tensor in last.items():
        kept = {
            Frozen.NOTHING: False,
            Frozen.BATCH_NORM: name.endswith(STATISTICS),
            Frozen.ENCODER: name.startswith("encoder."),
        }[frozen]
        assert torch.equal(tensor, start[name]) == kept, name


def test_two_runs_give_identical_weights_and_history(training_set: TrainingSet) -> None:
    first, second = (_fit(training_set, validation=_validation()) for _ in range(2))
    assert all(torch.equal(first.selected.state[name], second.selected.state[name]) for name in first.selected.state)
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=True)


def test_weights_start_from_the_model_and_move(training_set: TrainingSet) -> None:
    start = _Net().state_dict()
    moved = _fit(training_set, _params(steps=1)).selected.state
    assert all(not torch.equal(moved[name], start[name]) for name in ("encoder.0.weight", "head.weight"))


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_have_a_schedule_too(training_set: TrainingSet, schedule: Schedule, steps: int) -> None:
    result = _fit(training_set, _params(schedule=schedule, steps=steps))
    assert result.history["step"].iloc[-1] == steps


def test_the_last_epoch_may_be_short(training_set: TrainingSet) -> None:
    # 12 images in batches of 4: three steps an epoch.
    history = _fit(training_set, _params(steps=7)).history
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["step"].tolist() == [3, 6, 7]


def test_each_step_learns_from_its_batch_and_epochs_are_numbered_from_1(training_set: TrainingSet) -> None:
    seen: list[Tensor] = []

    def objective(model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
        seen.append(batch.images)
        return _objective(model, batch, generator)

    _fit(training_set, _params(steps=5), objective=objective)
    expected = [batch.images for epoch in (1, 2) for batch in training_set.batches(epoch, 4)][:5]
    assert len(seen) == 5
    assert all(torch.equal(*pair) for pair in zip(seen, expected, strict=True))


def test_the_history_holds_means_over_the_epoch(training_set: TrainingSet) -> None:
    losses: list[float] = []

    def objective(model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
        step = _objective(model, batch, generator)
        losses.append(float(step.total.detach()))
        return step

    history = _fit(training_set, objective=objective, validation=_validation()).history
    columns = ["epoch", "step", "image_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert history.columns.tolist() == columns
    assert history["image_loss"].tolist() == pytest.approx([np.mean(losses[:3]), np.mean(losses[3:])])
    assert history["learning_rate"].tolist() == [0.001, 0.001]


class _Script:
    """Stands in for `validate`: gives scripted values and keeps the weights that each epoch had."""

    def __init__(self, rows: list[tuple[float, float]]) -> None:
        self.rows = rows
        self.states: list[dict[str, Tensor]] = []

    def __call__(self, model: nn.Module, batches: object, device: torch.device) -> dict[str, float]:
        del batches, device
        loss, accuracy = self.rows[len(self.states)]
        self.states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"val_loss": loss, "val_accuracy": accuracy}


@pytest.mark.parametrize(
    ("selection", "epoch"), [(Selection.LAST, 4), (Selection.VAL_ACCURACY, 3), (Selection.VAL_LOSS, 1)]
)
def test_the_selected_weights_are_those_of_the_right_epoch(
    training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch, selection: Selection, epoch: int
) -> None:
    # Accuracy is highest in the epochs 2 and 3, of which the later is taken; the loss is lowest in epoch 1.
    script = _Script([(0.1, 0.5), (0.4, 0.9), (0.3, 0.9), (0.2, 0.8)])
    monkeypatch.setattr(loop, "validate", script)
    result = _fit(training_set, _params(steps=12, selection=selection), validation=_validation())
    assert result.selected.epoch == epoch
    for name, weights in result.selected.state.items():
        assert torch.equal(weights, script.states[epoch - 1][name])
        assert torch.equal(result.kept[Selection.LAST].state[name], script.states[3][name])
    assert (epoch == 4) == all(
        torch.equal(result.selected.state[name], result.kept[Selection.LAST].state[name])
        for name in result.selected.state
    )


def test_selected_weights_do_not_change_with_the_model(training_set: TrainingSet) -> None:
    model = _Net()
    result = _fit(training_set, model=model)
    with torch.no_grad():
        model.head.weight.zero_()
    assert bool(result.selected.state["head.weight"].any())
    assert bool(result.kept[Selection.LAST].state["head.weight"].any())


def _with_masks(known: bool = True) -> list[EvaluationBatch]:
    """Return the validation images with a mask of 2x2 pixels of which the left ones are foreground."""
    batch = _validation()[0]
    masks = torch.tensor([[True, False], [True, False]]).expand(len(batch.images), 2, 2)
    return [replace(batch, masks=masks, has_mask=torch.full((len(batch.images),), known))]


class _ScriptedMaps:
    """A localizer whose map is right in the second epoch alone, where its left pixels are higher."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        self.calls += 1
        left = 0.9 if self.calls == 2 else 0.1
        maps = torch.tensor([[left, 0.5], [left, 0.5]]).expand(len(images), 2, 2)
        return Localization(torch.zeros(len(class_idx), 2), maps)


def test_the_epoch_with_the_best_maps_can_be_selected_or_kept_beside(training_set: TrainingSet) -> None:
    # Precision is 1 at the only threshold that gains recall in epoch 2; else 1/2, the share of foreground.
    selected = _fit(
        training_set,
        _params(steps=12, selection=Selection.VAL_PXAP),
        validation=_with_masks(),
        localizer=_ScriptedMaps(),
    )
    assert selected.history["val_pxap"].tolist() == [0.5, 1.0, 0.5, 0.5]
    assert (selected.selected.epoch, selected.kept[Selection.LAST].epoch) == (2, 4)
    kept = _fit(
        training_set,
        _params(steps=12, keep=(Selection.VAL_PXAP,)),
        validation=_with_masks(),
        localizer=_ScriptedMaps(),
    )
    assert sorted(kept.kept) == ["last", "val_pxap"]
    for name, weights in kept.kept[Selection.VAL_PXAP].state.items():
        assert torch.equal(weights, selected.selected.state[name])


def test_masks_that_must_not_be_used_select_nothing(training_set: TrainingSet) -> None:
    with pytest.raises(PixelCAMError, match="'val_pxap' needs validation images with masks that may be used"):
        _fit(training_set, _params(selection=Selection.VAL_PXAP), validation=_with_masks(known=False))


def test_localization_is_scored_on_known_masks_at_their_size_without_ignored_pixels() -> None:
    (batch,) = _with_masks()
    maps = torch.tensor([[0.2, 0.4], [0.8, 0.6]])

    def localizer(images: Tensor, class_idx: Tensor) -> Localization:
        return Localization(torch.zeros(len(class_idx), 2), maps.expand(len(images), 2, 2))

    one = replace(batch, has_mask=torch.tensor([True, False, False]))
    # By falling value: 0.8 foreground, 0.6 and 0.4 background, 0.2 foreground.
    assert localization_score(localizer, [one], torch.device("cpu")) == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    ignored = replace(one, ignore=torch.tensor([[True, True], [False, False]]).expand(3, 2, 2))
    assert localization_score(localizer, [ignored], torch.device("cpu")) == 1.0


class _Fixed(nn.Module):
    """Gives the logits (0, x) where x is the first pixel of the image."""

    def forward(self, images: Tensor) -> _Output:
        first = images[:, 0, 0, 0]
        return _Output(torch.stack([torch.zeros_like(first), first], dim=1))


def _batch(values: list[float], class_idx: list[int]) -> EvaluationBatch:
    count = len(values)
    images = torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    unknown = torch.zeros(count, dtype=torch.bool)
    return EvaluationBatch(
        image_ids=("",) * count,
        images=images,
        class_idx=torch.tensor(class_idx),
        masks=torch.zeros(count, 1, 1, dtype=torch.bool),
        has_mask=unknown,
    )


def test_validation_is_averaged_over_images_not_batches() -> None:
    ln3 = math.log(3)  # logits (0, ln 3) are the probabilities 1/4 and 3/4
    model = _Fixed().train()
    scores = validate(model, [_batch([ln3, ln3], [1, 0]), _batch([-ln3], [0])], torch.device("cpu"))
    losses = [-math.log(3 / 4), -math.log(1 / 4), -math.log(3 / 4)]
    assert scores["val_loss"] == pytest.approx(sum(losses) / 3)
    assert scores["val_accuracy"] == pytest.approx(2 / 3)
    assert not model.training, "validation must not move batch statistics"


def test_validation_leaves_the_weights_alone(training_set: TrainingSet) -> None:
    with_it, without = _fit(training_set, validation=_validation()), _fit(training_set)
    assert all(
        torch.equal(with_it.selected.state[name], without.selected.state[name]) for name in without.selected.state
    )


def test_no_validation_images_is_fine_for_the_last_epoch(training_set: TrainingSet) -> None:
    result = _fit(training_set)
    assert result.selected.epoch == 2
    assert not [column for column in result.history if str(column).startswith("val")]


@pytest.mark.parametrize("selection", [Selection.VAL_ACCURACY, Selection.VAL_LOSS, Selection.VAL_PXAP])
def test_a_selection_without_validation_images_is_refused(training_set: TrainingSet, selection: Selection) -> None:
    with pytest.raises(PixelCAMError, match=f"selection, keep: '{selection}' needs validation images"):
        _fit(training_set, _params(selection=selection))


def test_training_images_of_one_class_are_refused(tmp_path: Path) -> None:
    written = write_images(tmp_path / "images", noise_images(3))
    rows = tuple(replace(row, class_idx=0, label="benign") for row in written.rows)
    alike = TrainingSet(Manifest(rows, written.root), input_size=8, augmentation=NO_AUGMENTATION, seed=0)
    with pytest.raises(PixelCAMError, match=r"all training images .* are 'benign'.*mend the labels or the split"):
        _fit(alike)


def test_no_training_image_is_refused(tmp_path: Path) -> None:
    empty = TrainingSet(Manifest((), tmp_path), input_size=8, augmentation=NO_AUGMENTATION, seed=0)
    with pytest.raises(PixelCAMError, match="no training image"):
        _fit(empty)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(training_set: TrainingSet, value: float) -> None:
    count = 0

    def objective(model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
        nonlocal count
        count += 1
        step = _objective(model, batch, generator)
        loss = step.total * (value if count == 5 else 1)
        return StepLosses(loss, {"image_loss": loss}, step.image_logits)

    with pytest.raises(PixelCAMError, match=r"toy: image_loss became .* in epoch 2; lower learning_rate"):
        _fit(training_set, _params(steps=12), objective=objective)


def test_random_draws_come_from_the_seed_and_go_on_from_step_to_step(training_set: TrainingSet) -> None:
    def draws(seed: int) -> list[float]:
        drawn: list[float] = []

        def objective(model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
            drawn.append(float(torch.rand(1, generator=generator)))
            return _objective(model, batch, generator)

        _fit(training_set, objective=objective, seed=seed)
        return drawn

    assert draws(0) == draws(0)
    assert len({*draws(0), *draws(1)}) == 12


def test_bfloat16_autocast_learns_with_float32_weights(training_set: TrainingSet) -> None:
    params = _params(steps=60, learning_rate=0.01, head_learning_rate=0.1)
    result = _fit(training_set, params, fabric=_fabric("bf16-mixed"), validation=_validation())
    assert result.device == f"cpu, threads: {torch.get_num_threads()}, bf16-mixed"
    assert {tensor.dtype for tensor in result.kept[Selection.LAST].state.values()} == {torch.float32, torch.int64}
    assert result.history["image_loss"].iloc[-1] < 0.2
    exact = _fit(training_set, params)
    assert not torch.equal(
        result.kept[Selection.LAST].state["head.weight"], exact.kept[Selection.LAST].state["head.weight"]
    ), "autocast had no effect"
