"""A checkpoint that cannot be taken up is named, however it is damaged; a GPU's generator is kept in one, too."""

from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from pipeline.params.errors import PixelCAMError
from pipeline.training.checkpoints import Checkpoint, Keeper, TrainingState, load_state, save_state


def _state(model: nn.Module, generator: torch.Generator | None = None) -> TrainingState:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator() if generator is None else generator
    return TrainingState(model, optimizer, CosineAnnealingLR(optimizer, T_max=2), generator, Keeper([]))


@pytest.mark.parametrize("numbers", ["[]", '{"groups": [3]}', "1"])
def test_numbers_of_another_shape_are_damage(numbers: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "state")
    checkpoint.save(_state(nn.Linear(1, 1)))
    (tmp_path / "state/state.json").write_text(numbers, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=r"state: this checkpoint is damaged .*; remove the folder"):
        checkpoint.load(_state(nn.Linear(1, 1)))


def test_the_weights_of_another_model_are_damage(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "state")
    checkpoint.save(_state(nn.Linear(2, 1)))
    with pytest.raises(PixelCAMError, match=r"(?s)state: this checkpoint is damaged .*; remove the folder"):
        checkpoint.load(_state(nn.Linear(1, 1)))


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
    state = _state(nn.Linear(1, 1), cast(torch.Generator, _OfGpu()))
    restored: list[list[int]] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([7, 3], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda values: restored.append(values.tolist()))
    save_state(state, tmp_path)
    load_state(state, tmp_path)
    assert restored == [[7, 3]]
