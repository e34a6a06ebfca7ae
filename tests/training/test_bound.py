"""What adapting cannot surpass: one round on the target itself, with pixels from its masks; no state is left behind."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tiny import tiny_params

from pipeline.data.manifest import PreparedDomain
from pipeline.params.vocabulary import Approach
from pipeline.training import repeats


def test_a_bound_is_one_supervised_round_whose_state_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def train(source: PreparedDomain, *, params: Any, folder: Path, states: Path) -> None:  # noqa: ANN401
        asked.append((source.name, params.train_pixelcam.approach, params.rounds))
        (states / "state").mkdir(parents=True)
        (folder / "teacher").mkdir()

    monkeypatch.setattr(repeats, "_train_chain", train)
    target = cast(PreparedDomain, SimpleNamespace(name="away"))
    params = tiny_params(tmp_path, {"rounds": {"round_2": "pixelcam"}})
    repeats.train_bound(target, params=params, output=tmp_path / "bound", checkpoints=tmp_path / "states")
    assert asked == [("away", Approach.SUPERVISED, {})]
    assert (tmp_path / "bound/teacher").is_dir()
    assert not list((tmp_path / "states").iterdir())
