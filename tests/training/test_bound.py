"""What a domain's own labels give: one round on it, with pixels from its masks; no state is left."""

from pathlib import Path
from typing import Any

import pytest
from tiny import make_row, noise_images, tiny_params, write_images

from pipeline.data.manifest import Manifest, PreparedDomain
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import Approach, Selection
from pipeline.training import repeats


def _domain(folder: Path, *, mask: str) -> PreparedDomain:
    """A domain of one training image of class 1, whose mask is never opened."""
    write_images(folder, noise_images(1, size=4))
    (folder / "mask.png").touch()
    row = make_row("0.png", root=folder, mask=mask, class_idx=1)
    return PreparedDomain("away", ("benign", "malignant"), 0, Manifest((row,), folder))


def test_a_bound_is_one_supervised_round_whose_state_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def train(source: PreparedDomain, *, params: Any, folder: Path, states: Path) -> None:  # noqa: ANN401
        asked.append((source.name, params.train_pixelcam.approach, params.rounds, params.train_teacher.selection))
        (states / "state").mkdir(parents=True)
        (folder / "teacher").mkdir()

    monkeypatch.setattr(repeats, "_train_chain", train)
    params = tiny_params(tmp_path, {"rounds": {"round_2": "pixelcam"}, "train_teacher.selection": "val_accuracy"})
    target = _domain(tmp_path, mask="mask.png")
    repeats.train_bound(target, params=params, output=tmp_path / "bound", checkpoints=tmp_path / "states")
    assert asked == [("away", Approach.SUPERVISED, {}, Selection.LAST)], "there are no validation images to select by"
    assert (tmp_path / "bound/teacher").is_dir()
    assert not list((tmp_path / "states").iterdir())


def test_a_training_image_without_a_mask_is_told_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"bounds: 'away' has 1 training image\(s\) without a mask.*0\.png"):
        repeats.train_bound(
            _domain(tmp_path, mask=""), params=tiny_params(tmp_path), output=tmp_path / "bound", checkpoints=tmp_path
        )
    assert not (tmp_path / "bound").exists()
