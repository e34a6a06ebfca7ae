"""Training a teacher: image labels alone, any encoder of timm, the same files each time."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from tiny import Run, digests, prepare_domains, tiny_params
from torch import Tensor, nn

from pipeline.domains import PreparedDomain, read_domain
from pipeline.errors import PixelCAMError
from pipeline.manifest import Manifest
from pipeline.teacher import load_teacher
from pipeline.teacher_training import teacher_objective, train_teacher
from pipeline.training_set import TrainingBatch


class _Output(NamedTuple):
    image_logits: Tensor


class _Logits(nn.Module):
    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: Tensor) -> _Output:
        del images
        return _Output(self.logits)


def test_the_objective_is_the_cross_entropy_of_the_image_labels() -> None:
    # Probabilities of the true classes: 3/4 and 1/2.
    model = _Logits([[0.0, math.log(3)], [0.0, 0.0]])
    batch = TrainingBatch(torch.zeros(2, 3, 4, 4), torch.tensor([1, 0]))
    losses = teacher_objective(model, batch, torch.Generator())
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert losses.total.item() == pytest.approx(expected)
    assert {name: loss.item() for name, loss in losses.parts.items()} == {"image_loss": pytest.approx(expected)}
    assert torch.equal(losses.image_logits, model.logits)


def _home(run: Run) -> PreparedDomain:
    return read_domain("home", tiny_params(run.root / "raw"), run.prepared / "home")


def _train(run: Run, output: Path, changes: Mapping[str, object] | None = None) -> Path:
    train_teacher(_home(run), params=tiny_params(run.root / "raw", changes), output=output)
    return output


@pytest.fixture
def prepared(started: Run) -> Run:
    prepare_domains(started)
    return started


def test_a_teacher_is_written_with_all_that_tells_how_it_came_about(prepared: Run, tmp_path: Path) -> None:
    folder = _train(prepared, tmp_path / "teacher")
    teacher, info = load_teacher(folder)
    assert info.classes == ("benign", "malignant")
    assert info.domain == "home"
    assert (info.encoder.name, info.encoder.input_size) == ("test_efficientnet", 64)
    assert teacher(torch.zeros(2, 3, 64, 64)).image_logits.shape == (2, 2)
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert description["params"]["steps"] == 4
    assert description["seed"] == 0
    assert description["parents"] == {}
    history = pd.read_csv(folder / "history.csv")
    # Six images in batches of two: three steps an epoch.
    assert history["step"].tolist() == [3, 4]
    assert {"image_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate"} < set(history.columns)


def test_the_same_params_give_the_same_files_and_another_seed_others(prepared: Run, tmp_path: Path) -> None:
    first = digests(_train(prepared, tmp_path / "1"))
    assert digests(_train(prepared, tmp_path / "2")) == first
    other = digests(_train(prepared, tmp_path / "3", {"seed": 1}))
    assert other["model.safetensors"] != first["model.safetensors"]


def test_the_teacher_learns_a_dark_disc_from_a_dark_bar(prepared: Run, tmp_path: Path) -> None:
    changes = {"train_teacher.steps": 50, "train_teacher.learning_rate": 0.003, "train_teacher.batch_size": 6}
    history = pd.read_csv(_train(prepared, tmp_path / "teacher", changes) / "history.csv")
    assert history["image_loss"].iloc[-1] < 0.7 * history["image_loss"].iloc[0]


@pytest.mark.parametrize("encoder", ["test_vit", "test_resnet", "resnet10t"])
def test_other_encoders_need_no_other_change(prepared: Run, tmp_path: Path, encoder: str) -> None:
    folder = _train(prepared, tmp_path / "teacher", {"encoder": encoder, "train_teacher.steps": 1})
    teacher, info = load_teacher(folder)
    assert info.encoder.name == encoder
    assert teacher(torch.zeros(1, 3, 64, 64)).image_logits.isfinite().all()


def test_masks_are_never_opened(prepared: Run, tmp_path: Path) -> None:
    for mask in (prepared.root / "raw/home/masks").iterdir():
        mask.write_bytes(b"")
    assert (_train(prepared, tmp_path / "teacher") / "model.safetensors").exists()


def test_test_images_are_never_opened(prepared: Run, tmp_path: Path) -> None:
    for image in (prepared.root / "raw/home/images").glob("test_*"):
        image.write_bytes(b"")
    assert (_train(prepared, tmp_path / "teacher") / "model.safetensors").exists()


def test_a_failed_training_writes_nothing(prepared: Run, tmp_path: Path) -> None:
    image = prepared.root / "raw/home/images/val_1.png"
    image.write_bytes((prepared.root / "raw/home/images/val_0.png").read_bytes())
    with pytest.raises(PixelCAMError, match=r"val_1\.png: has changed"):
        _train(prepared, tmp_path / "models/teacher")
    assert not (tmp_path / "models").exists() or list((tmp_path / "models").iterdir()) == []


def test_a_rate_that_is_far_too_high_is_said_so(prepared: Run, tmp_path: Path) -> None:
    changes = {"train_teacher.learning_rate": 1e30, "train_teacher.head_learning_rate": 1e30}
    with pytest.raises(PixelCAMError, match=r"teacher: .* became .* in epoch \d; lower learning_rate"):
        _train(prepared, tmp_path / "teacher", changes)
    assert not (tmp_path / "teacher").exists()


def test_a_source_without_training_images_is_refused(prepared: Run, tmp_path: Path) -> None:
    home = _home(prepared)
    empty = PreparedDomain(home.name, home.classes, None, Manifest((), home.manifest.root))
    with pytest.raises(PixelCAMError, match="no training image"):
        train_teacher(empty, params=tiny_params(prepared.root / "raw"), output=tmp_path / "teacher")


def test_an_unknown_encoder_is_named(prepared: Run, tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match="encoder: timm cannot build 'resnet_of_mine'"):
        _train(prepared, tmp_path / "teacher", {"encoder": "resnet_of_mine"})
