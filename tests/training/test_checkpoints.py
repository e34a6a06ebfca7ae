"""A training that stopped anywhere goes on to the same bytes, and never from another training's state."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from lightning_fabric import Fabric
from tiny import NO_AUGMENTATION, noise_images, write_images
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.data.manifest import Manifest
from pipeline.data.maps import EvaluationBatch, Localization
from pipeline.data.training_set import TrainingBatch, TrainingSet
from pipeline.params.config import TrainingParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import Frozen, OptimizerName, Schedule, Selection
from pipeline.training.checkpoints import fingerprint_of, noticing_termination
from pipeline.training.loop import StepLosses, TrainingResult, fit

PARAMS = TrainingParams(
    steps=8,  # two epochs of three batches, and a short one
    batch_size=4,
    optimizer=OptimizerName.ADAMW,
    learning_rate=0.001,
    head_learning_rate=0.01,
    weight_decay=0.01,
    schedule=Schedule.ONE_CYCLE,
    selection=Selection.VAL_LOSS,
    keep=(Selection.LAST,),
    frozen=Frozen.NOTHING,
    layer_decay=1.0,
    compile=False,
)


class _Output(NamedTuple):
    image_logits: Tensor


class _Net(nn.Module):
    """Convolution, batch norm and dropout, which draws from torch's own generator, and a linear head."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.Dropout(0.2))
            self.head = nn.Linear(channels, 2)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> _Output:
        return _Output(self.head(self.encoder(images).mean(dim=(2, 3))))


def _objective(model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
    logits = model(batch.images).image_logits
    loss = cross_entropy(logits, batch.class_idx) * (1 + torch.rand((), generator=generator))
    return StepLosses(loss, {"image_loss": loss}, logits)


def _nowhere(images: Tensor, class_idx: Tensor) -> Localization:
    return Localization(torch.zeros(len(class_idx), 2), torch.zeros(len(images), 2, 2))


@pytest.fixture
def training_set(tmp_path: Path) -> TrainingSet:
    written = write_images(tmp_path / "images", noise_images(12))
    rows = tuple(replace(row, class_idx=row.class_idx % 2) for row in written.rows)
    return TrainingSet(Manifest(rows, written.root), input_size=8, augmentation=NO_AUGMENTATION, seed=0)


def _fit(
    training_set: TrainingSet,
    checkpoints: Path,
    *,
    params: TrainingParams = PARAMS,
    after_step: Callable[[int], None] = lambda _: None,
) -> TrainingResult:
    """Train, calling `after_step` with the number of each step, from 1."""
    count = 0

    def objective(model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
        nonlocal count
        count += 1
        after_step(count)
        return _objective(model, batch, generator)

    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros(4, 1, 1, dtype=torch.bool)
    validation = EvaluationBatch(
        image_ids=("a", "b", "c", "d"),
        images=images,
        class_idx=torch.arange(4) % 2,
        masks=nothing,
        has_mask=nothing[:, 0, 0],
    )
    torch.manual_seed(5)  # what dropout draws from
    return fit(
        _Net(),
        objective,
        training_set=training_set,
        validation=[validation],
        localizer=_nowhere,
        params=params,
        seed=0,
        fabric=Fabric(accelerator="cpu", devices=1),
        checkpoints=checkpoints,
        label="toy",
    )


def _assert_same(first: TrainingResult, second: TrainingResult) -> None:
    assert first.history.equals(second.history)
    assert {name: kept.epoch for name, kept in first.kept.items()} == {n: kept.epoch for n, kept in second.kept.items()}
    for selection, kept in first.kept.items():
        for name, tensor in kept.state.items():
            assert tensor.numpy().tobytes() == second.kept[selection].state[name].numpy().tobytes(), name


class _Killed(BaseException):
    """Ends a training as SIGKILL would: nothing of it runs any more."""


@pytest.mark.parametrize("optimizer", list(OptimizerName))
@pytest.mark.parametrize("schedule", list(Schedule))
def test_killed_in_any_step_it_goes_on_from_the_last_epoch_to_the_same_bytes(
    training_set: TrainingSet, tmp_path: Path, optimizer: OptimizerName, schedule: Schedule
) -> None:
    params = PARAMS.model_copy(update={"optimizer": optimizer, "schedule": schedule})
    undisturbed = _fit(training_set, tmp_path / "undisturbed", params=params)
    for killed_in in (1, 4, 5, 8):
        done: list[int] = []

        def kill(step: int, killed_in: int = killed_in) -> None:
            if step == killed_in:
                raise _Killed

        with pytest.raises(_Killed):
            _fit(training_set, tmp_path / "state", params=params, after_step=kill)
        resumed = _fit(training_set, tmp_path / "state", params=params, after_step=done.append)
        assert len(done) == 8 - 3 * ((killed_in - 1) // 3), "more than the epoch under way was repeated"
        _assert_same(resumed, undisturbed)
        resumed.checkpoint.remove()
        assert not list((tmp_path / "state").iterdir())


@pytest.mark.parametrize("stopped_in", [1, 2, 3, 7, 8])
def test_at_sigterm_it_keeps_every_step(
    training_set: TrainingSet, tmp_path: Path, stopped_in: int, capfd: pytest.CaptureFixture[str]
) -> None:
    undisturbed = _fit(training_set, tmp_path / "undisturbed")
    done: list[int] = []

    def terminate(step: int) -> None:
        if step == stopped_in:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        _fit(training_set, tmp_path / "state", after_step=terminate)
    assert stopped.value.code == 143
    assert f"toy: stopped after step {stopped_in}; run the same command again" in capfd.readouterr().err
    resumed = _fit(training_set, tmp_path / "state", after_step=done.append)
    assert len(done) == 8 - stopped_in
    assert stopped_in == 8 or f"going on at step {stopped_in + 1}, from" in capfd.readouterr().err
    _assert_same(resumed, undisturbed)


def test_the_state_of_other_params_is_never_taken_up(training_set: TrainingSet, tmp_path: Path) -> None:
    def kill(step: int) -> None:
        if step == 5:
            raise _Killed

    with pytest.raises(_Killed):
        _fit(training_set, tmp_path / "state", after_step=kill)
    (left,) = (tmp_path / "state").iterdir()
    for changes in ({"learning_rate": 0.002}, {"steps": 9}, {"weight_decay": 0.02}):
        params = PARAMS.model_copy(update=changes)
        done: list[int] = []
        result = _fit(training_set, tmp_path / "state", params=params, after_step=done.append)
        assert len(done) == params.steps
        _assert_same(result, _fit(training_set, tmp_path / "fresh", params=params))
    assert left.is_dir(), "another training's state was removed"


def test_a_fingerprint_depends_on_weights_and_values() -> None:
    first, other = _Net(), _Net()
    assert fingerprint_of(first, [{"a": 1, "b": 2}]) == fingerprint_of(other, [{"b": 2, "a": 1}])
    assert fingerprint_of(first, [1]) != fingerprint_of(first, [2])
    with torch.no_grad():
        other.head.bias[0] += 1e-6
    assert fingerprint_of(first, [1]) != fingerprint_of(other, [1])


def test_killed_before_its_model_is_on_disk_no_step_is_repeated(training_set: TrainingSet, tmp_path: Path) -> None:
    first = _fit(training_set, tmp_path / "state")  # and what follows it was killed
    done: list[int] = []
    _assert_same(_fit(training_set, tmp_path / "state", after_step=done.append), first)
    assert done == []


def test_without_memory_for_it_a_state_is_not_called_damaged(
    training_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fit(training_set, tmp_path / "state")

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("pipeline.training.checkpoints.load_state", fail)
    with pytest.raises(torch.OutOfMemoryError):
        _fit(training_set, tmp_path / "state")


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_state_is_named_with_its_remedy(
    training_set: TrainingSet, tmp_path: Path, name: str, damage: str
) -> None:
    def kill(step: int) -> None:
        if step == 5:
            raise _Killed

    with pytest.raises(_Killed):
        _fit(training_set, tmp_path / "state", after_step=kill)
    (folder,) = (tmp_path / "state").iterdir()
    match damage:
        case "missing":
            (folder / name).unlink()
        case "cut":
            (folder / name).write_bytes((folder / name).read_bytes()[:20])
        case "other":
            (folder / name).write_bytes(b"{}")
    with pytest.raises(PixelCAMError, match=rf"{folder.name}: this checkpoint is damaged .*; remove the folder"):
        _fit(training_set, tmp_path / "state")


def test_the_former_handler_of_sigterm_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with noticing_termination() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(timeout=60)
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_of_the_main_thread_no_signal_is_asked_for() -> None:
    unset: list[bool] = []

    def enter() -> None:
        with noticing_termination() as asked:
            unset.append(asked.is_set())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert unset == [False]
