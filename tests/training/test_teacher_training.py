"""Training a teacher: image labels alone, any encoder of timm, the same files each time."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import Run, digests, prepare_domains, tiny_params
from torch import Tensor, nn

from pipeline.data.manifest import Manifest, PreparedDomain, read_domain
from pipeline.data.training_set import TrainingBatch
from pipeline.models.teacher import Teacher, TeacherOutput, load_teacher
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import ImageHeadName, Regularization
from pipeline.training.teacher import TeacherObjective, drop_or_weigh, hide_cells, paste_boxes, train_teacher


class _Fixed(nn.Module):
    """Gives logits (B, K) and a penalty, whatever the images, and remembers what it was called with."""

    def __init__(self, logits: list[list[float]], penalty: float = 0.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.penalty = torch.tensor(penalty)
        self.images = torch.empty(0)
        self.feature_filter: Callable[[Tensor], Tensor] | None = None

    def forward(self, images: Tensor, feature_filter: Callable[[Tensor], Tensor] | None = None) -> TeacherOutput:
        self.images, self.feature_filter = images, feature_filter
        return TeacherOutput(self.logits, self.penalty)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def _batch() -> TrainingBatch:
    return TrainingBatch(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(7)), torch.tensor([1, 0]))


# Probabilities of the true classes: 3/4 and 1/2.
LOGITS = [[0.0, math.log(3)], [0.0, 0.0]]
IMAGE_LOSS = (math.log(4 / 3) + math.log(2)) / 2


@pytest.mark.parametrize("regularization", [Regularization.NONE, Regularization.HAS, Regularization.ADL])
def test_the_objective_is_the_cross_entropy_of_the_image_labels_plus_the_penalty(
    regularization: Regularization,
) -> None:
    model = _Fixed(LOGITS, penalty=0.25)
    losses = TeacherObjective(regularization)(model, _batch(), _generator())
    assert losses.total.item() == pytest.approx(IMAGE_LOSS + 0.25)
    assert {name: loss.item() for name, loss in losses.parts.items()} == {"image_loss": pytest.approx(IMAGE_LOSS)}
    assert losses.image_logits is not None
    assert torch.equal(losses.image_logits, model.logits)


def test_without_regularization_the_images_come_as_they_are() -> None:
    model, batch = _Fixed(LOGITS), _batch()
    TeacherObjective(Regularization.NONE)(model, batch, _generator())
    assert model.images is batch.images
    assert model.feature_filter is None


def test_has_shows_images_with_hidden_cells() -> None:
    model, batch = _Fixed(LOGITS), _batch()
    TeacherObjective(Regularization.HAS)(model, batch, _generator())
    assert torch.equal(model.images, hide_cells(batch.images, _generator()))
    assert not torch.equal(model.images, batch.images)


def test_cutmix_weighs_both_labels_by_their_area() -> None:
    model, batch = _Fixed(LOGITS, penalty=0.25), _batch()
    seed = next(s for s in range(9) if torch.randperm(2, generator=torch.Generator().manual_seed(s))[0] == 1)
    losses = TeacherObjective(Regularization.CUTMIX)(model, batch, torch.Generator().manual_seed(seed))
    mixed, partner, share = paste_boxes(batch.images, torch.Generator().manual_seed(seed))
    assert torch.equal(model.images, mixed)
    assert partner.tolist() == [1, 0]
    assert 0 < share < 1
    others = (math.log(4) + math.log(2)) / 2  # the pasted boxes have the other class
    expected = share * IMAGE_LOSS + (1 - share) * others
    assert losses.parts["image_loss"].item() == pytest.approx(expected)
    assert losses.total.item() == pytest.approx(expected + 0.25)


def test_adl_filters_the_features_between_encoder_and_head(teacher: Teacher) -> None:
    batch = _batch()
    losses = TeacherObjective(Regularization.ADL)(teacher, batch, _generator())
    features = teacher.encoder(batch.images)
    expected = teacher.image_head(drop_or_weigh(features, _generator()))
    torch.testing.assert_close(losses.image_logits, expected)
    assert not torch.allclose(expected, teacher.image_head(features))


def _home(run: Run) -> PreparedDomain:
    return read_domain("home", tiny_params(run.root / "raw"), run.prepared / "home")


def _train(run: Run, output: Path, changes: Mapping[str, object] | None = None) -> Path:
    train_teacher(_home(run), params=tiny_params(run.root / "raw", changes), output=output, checkpoints=run.checkpoints)
    return output


@pytest.fixture
def prepared(started: Run) -> Run:
    prepare_domains(started)
    return started


@pytest.fixture(scope="module")
def teacher(finished: Run) -> Teacher:
    """A trained teacher in evaluation mode."""
    return load_teacher(finished.teacher)[0]


@pytest.mark.parametrize(
    ("head", "regularization"),
    [(head, Regularization.NONE) for head in ImageHeadName]
    + [(ImageHeadName.GAP, regularization) for regularization in Regularization][1:]
    + [(ImageHeadName.SAT, Regularization.ADL)],
)
def test_every_head_and_regularization_trains_and_is_read_back(
    finished: Run, tmp_path: Path, head: ImageHeadName, regularization: Regularization
) -> None:
    changes = {"model.image_head": head, "train_teacher.regularization": regularization, "train_teacher.steps": 2}
    folder = _train(finished, tmp_path / "teacher", changes)
    teacher, info = load_teacher(folder)
    assert info.image_head is teacher.image_head.name is head
    output = teacher(_batch().images)
    assert output.image_logits.shape == (2, 2)
    assert output.image_logits.isfinite().all()
    assert bool(output.penalty > 0) is (head is ImageHeadName.SAT)


def test_a_regularization_changes_what_is_learned_and_repeats_itself(finished: Run, tmp_path: Path) -> None:
    def weights(name: str, regularization: str) -> str:
        changes = {"train_teacher.regularization": regularization, "train_teacher.steps": 2}
        return digests(_train(finished, tmp_path / name, changes))["model.safetensors"]

    first = [weights(name, name) for name in Regularization]
    assert len(set(first)) == len(Regularization)
    assert weights("again", "cutmix") == first[2]


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
    changes = {"train_teacher.keep": ["last", "val_accuracy", "val_loss"]}
    assert (_train(prepared, tmp_path / "teacher", changes) / "model.safetensors").exists()


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
        train_teacher(
            empty,
            params=tiny_params(prepared.root / "raw"),
            output=tmp_path / "teacher",
            checkpoints=tmp_path / "state",
        )


def test_an_unknown_encoder_is_named(prepared: Run, tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match="encoder: timm cannot build 'resnet_of_mine'"):
        _train(prepared, tmp_path / "teacher", {"encoder": "resnet_of_mine"})
