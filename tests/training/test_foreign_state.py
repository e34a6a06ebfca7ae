"""A checkpoint that cannot be taken up is named, whatever is raised; a GPU's generator is kept in one, too."""

from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from pipeline.params.errors import PixelCAMError
from pipeline.training import checkpoints
from pipeline.training.checkpoints import Checkpoint, Keeper, TrainingState, load_state, save_state


@pytest.mark.parametrize("kind", [OSError, ValueError, KeyError, RuntimeError, SafetensorError])
def test_what_is_raised_of_a_damaged_state_becomes_a_sentence(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise kind("broken")

    (tmp_path / "state").mkdir()
    monkeypatch.setattr(checkpoints, "load_state", fail)
    with pytest.raises(PixelCAMError, match=r"state: this checkpoint is damaged \(.*broken.*\); remove the folder"):
        Checkpoint(tmp_path, "state").load(cast(TrainingState, None))


class _OfGpu:
    """A generator that says it is a GPU's."""

    device = torch.device("cuda")

    def __init__(self) -> None:
        self.state = torch.Generator().get_state()

    def get_state(self) -> Tensor:
        return self.state

    def set_state(self, state: Tensor) -> None:
        self.state = state


def test_the_generator_of_a_gpu_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = cast(torch.Generator, _OfGpu())
    state = TrainingState(model, optimizer, CosineAnnealingLR(optimizer, T_max=2), generator, Keeper([]))
    restored: list[list[int]] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([7, 3], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda values: restored.append(values.tolist()))
    save_state(state, tmp_path)
    load_state(state, tmp_path)
    assert restored == [[7, 3]]
