"""All that changes while a model trains, and where it is left, so that a training that was killed goes on unchanged."""

import hashlib
import importlib.metadata
import json
import math
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from pipeline.models.files import State
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import Selection, UnsupervisedScore
from pipeline.runtime.console import say
from pipeline.runtime.files import is_shortage, replacing_folder

TENSORS: Final = "state.safetensors"
NUMBERS: Final = "state.json"


Criterion = Selection | UnsupervisedScore


@dataclass(frozen=True)
class Kept:
    """The weights of an epoch, counted from 1, on the CPU."""

    epoch: int
    state: State


class Keeper:
    """Keep the weights of the best epoch for each of several criteria."""

    def __init__(self, criteria: Iterable[Criterion]) -> None:
        self.criteria = sorted(criteria)
        self.kept: dict[Criterion, Kept] = {}
        self.best = dict.fromkeys(self.criteria, math.inf)

    def see(self, model: nn.Module, row: dict[str, float], epoch: int) -> None:
        """Copy the weights if this epoch is the best so far by any criterion; see `_is_better` for equals."""
        better = [each for each in self.criteria if _is_better(_rank(row, each), self.best[each], each)]
        state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()} if better else {}
        for criterion in better:
            self.best[criterion] = _rank(row, criterion)
            self.kept[criterion] = Kept(epoch, state)


class Tally:
    """Means of scalars over an epoch, kept on their device until asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Count one batch."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()

    def means(self) -> dict[str, float]:
        """Return the mean of each scalar over the batches so far."""
        return {name: float(total) / self.count for name, total in self.sums.items()}


@dataclass
class TrainingState:
    """Where a training stands.

    Attributes:
        model: what is trained.
        optimizer: torch's own, no wrapper around it.
        schedule: of its learning rates.
        generator: of the random draws in a step.
        keeper: the best weights so far.
        history: a row per finished epoch.
        tally: of the epoch under way; its count says how many of its batches are done.
        memory: what else the epoch under way depends on, such as labels that were made at its start.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    generator: torch.Generator
    keeper: Keeper
    history: list[dict[str, float]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    memory: State = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Return which epoch is under way, from 1."""
        return len(self.history) + 1

    @property
    def step(self) -> int:
        """Return how many batches are done in all."""
        return int(self.history[-1]["step"] if self.history else 0) + self.tally.count

    def end_epoch(self, row: dict[str, float]) -> None:
        """Put an epoch's scores into the history, and begin the next one."""
        rate = float(self.schedule.get_last_lr()[0])
        self.history.append({"epoch": self.epoch, "step": self.step, **row, "learning_rate": rate})
        self.tally = Tally()

    def keep_best(self) -> None:
        """Keep the weights of the epoch that has come to its end if they are the best so far."""
        self.keeper.see(self.model, self.history[-1], len(self.history))


def save_state(state: TrainingState, folder: Path) -> None:
    """Write a training's state into an existing folder: tensors as safetensors, all else as JSON."""
    slots = state.optimizer.state_dict()["state"]
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {
        f"optimizer.{index}.{name}": value
        for index, slot in slots.items()
        for name, value in slot.items()
        if value is not None
    }
    epochs = {kept.epoch: kept.state for kept in state.keeper.kept.values()}
    tensors |= {f"kept.{epoch}.{name}": tensor for epoch, kept in epochs.items() for name, tensor in kept.items()}
    tensors |= {f"tally.{name}": total for name, total in state.tally.sums.items()}
    tensors |= {f"random.{name}": values for name, values in _random_states(state).items()}
    tensors |= {f"memory.{name}": values for name, values in state.memory.items()}
    numbers = {
        "groups": [{name: value for name, value in group.items() if name != "params"} for group in _groups(state)],
        "schedule": state.schedule.state_dict(),
        "history": state.history,
        "count": state.tally.count,
        "kept": {criterion: kept.epoch for criterion, kept in state.keeper.kept.items()},
        "best": state.keeper.best,
    }
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    (folder / NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")


def load_state(state: TrainingState, folder: Path) -> None:
    """Bring a training to the state that `save_state` wrote.

    Raises:
        OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, SafetensorError: the files are damaged,
            or are those of another training; the state is then unfit to train from.
    """
    tensors = load_file(folder / TENSORS)
    numbers: dict[str, Any] = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    state.model.load_state_dict(_below("model", tensors))
    weights = [weight for group in _groups(state) for weight in group["params"]]
    for index, weight in enumerate(weights):
        slot = _below(f"optimizer.{index}", tensors)
        # As torch made them: in the weight's own layout, so that the same arithmetic runs on them.
        state.optimizer.state[weight] = {
            name: torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value.to(weight.device)
            for name, value in slot.items()
        }
    for group, saved in zip(_groups(state), numbers["groups"], strict=True):
        group.update({name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()})
    state.schedule.load_state_dict(numbers["schedule"])
    state.history[:] = numbers["history"]
    state.tally.count = numbers["count"]
    state.tally.sums = {name: value.to(state.generator.device) for name, value in _below("tally", tensors).items()}
    criteria = {criterion.value: criterion for criterion in state.keeper.criteria}
    for name, epoch in numbers["kept"].items():
        state.keeper.kept[criteria[name]] = Kept(epoch, _below(f"kept.{epoch}", tensors))
    state.keeper.best = {criteria[name]: best for name, best in numbers["best"].items()}
    state.memory = _below("memory", tensors)
    random = _below("random", tensors)
    state.generator.set_state(random["draws"])
    torch.set_rng_state(random["cpu"])
    if "device" in random:
        torch.cuda.set_rng_state(random["device"])


def _groups(state: TrainingState) -> list[dict[str, Any]]:
    return state.optimizer.param_groups


def _random_states(state: TrainingState) -> State:
    """Return the state of the generators of draws, and of torch's own, which some encoders' dropout draws from."""
    states = {"draws": state.generator.get_state(), "cpu": torch.get_rng_state()}
    if state.generator.device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state()
    return states


def _below(prefix: str, tensors: State) -> State:
    """Return the tensors whose names begin with a prefix and a dot, without both."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _is_better(rank: float, best: float, criterion: Criterion) -> bool:
    """Return whether an epoch takes the place of the best so far.

    Among equals the later is taken, which has learned for longer; without labels the earlier, since what changes a
    model without improving it is not wanted.
    """
    return rank < best or (rank == best and isinstance(criterion, Selection))


def _rank(row: dict[str, float], criterion: Criterion) -> float:
    """Return what the selected epoch has least of."""
    match criterion:
        case Selection.LAST:
            return 0.0
        case Selection.VAL_ACCURACY:
            return -row["val_accuracy"]
        case Selection.VAL_LOSS:
            return row["val_loss"]
        case Selection.VAL_PXAP:
            return -row["val_pxap"]
        case UnsupervisedScore.MUTUAL_INFORMATION:
            return -row["mutual_information"]


COUNTED_PACKAGES: Final = ("pixelcam", "torch", "timm", "lightning-fabric")
STOPPED: Final = 128 + signal.SIGTERM  # exit status, as a shell counts


class Checkpoint:
    """The state of one training on disk, in a folder of its own below `root`.

    Args:
        root: folder of all checkpoints, outside of what DVC tracks.
        fingerprint: of everything that determines the training's result; part of the folder's name.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.folder = root / fingerprint

    def load(self, state: TrainingState) -> None:
        """Bring a training to where it was left, if it was.

        Raises:
            PixelCAMError: the checkpoint is damaged.
        """
        if not self.folder.exists():
            return
        try:
            load_state(state, self.folder)
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, SafetensorError) as error:
            if is_shortage(error):
                raise
            raise PixelCAMError(f"{self.folder}: this checkpoint is damaged ({error}); remove the folder") from error
        say(f"going on at step {state.step + 1}, from {self.folder}")

    def save(self, state: TrainingState) -> None:
        """Write a training's state in the place of the one before."""
        with replacing_folder(self.folder) as temporary:
            save_state(state, temporary)

    def remove(self) -> None:
        """Remove the state of a training that has come to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint_of(model: nn.Module, determined_by: list[Any]) -> str:
    """Return 32 hexadecimal digits for a model's weights, values in JSON's types, and the packages' versions."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    versions = {name: importlib.metadata.version(name) for name in COUNTED_PACKAGES}
    digest.update(json.dumps([versions, *determined_by], sort_keys=True).encode())
    return digest.hexdigest()[:32]


@contextmanager
def noticing_termination() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets instead of ending the process, within the block.

    Outside of the main thread, where Python handles no signals, the event stays unset.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    former = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, former)
