"""The joint training: both losses by hand, pixels drawn anew, the right start, and pseudo-labels of others refused."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
import zarr
from lightning_fabric import Fabric
from safetensors.torch import load_file
from tiny import NO_AUGMENTATION, Run, digests, tiny_params
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from pipeline.data.images import read_mask
from pipeline.data.manifest import Manifest, PreparedDomain, Split, read_domain
from pipeline.data.maps import Localization
from pipeline.data.scored_set import ScoredSet
from pipeline.data.training_set import TrainingBatch, TrainingSet
from pipeline.models.files import weights_sha256
from pipeline.models.pixelcam import PixelCAMLocalizer, PixelCAMOutput, load_pixelcam
from pipeline.params.config import PixelCAMParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import Approach, ImageHeadName, LossResolution, PixelClasses, PixelHeadName
from pipeline.pseudo_labels.extraction import extract_pseudo_labels
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.training import pixelcam
from pipeline.training.loop import StepLosses, fit
from pipeline.training.pixelcam import PixelCAMObjective, check_store, train_pixelcam


def _section(**changes: Any) -> PixelCAMParams:  # noqa: ANN401 - any field
    values = {"steps": 3, "batch_size": 2, "foreground_pixels": 5, "background_pixels": 5, "keep": ["last"], **changes}
    return tiny_params(Path(), {f"train_pixelcam.{key}": value for key, value in values.items()}).train_pixelcam


class _Fixed(nn.Module):
    """Gives image logits (B, K), pixel logits (B, 2, h, w) and a penalty, whatever the images."""

    def __init__(self, image_logits: Tensor, pixel_logits: Tensor, penalty: float = 0.0) -> None:
        super().__init__()
        self.penalty = torch.tensor(penalty)
        self.image_logits = nn.Parameter(image_logits)
        self.pixel_logits = nn.Parameter(pixel_logits)

    def forward(self, images: Tensor) -> PixelCAMOutput:
        del images
        return PixelCAMOutput(self.image_logits, self.pixel_logits, self.penalty)


def _batch(labels: Tensor, cam: Tensor | None = None) -> TrainingBatch:
    cam = torch.full(labels.shape, 0.7) if cam is None else cam
    return TrainingBatch(torch.zeros(len(labels), 3, *labels.shape[1:]), torch.zeros(len(labels)).long(), labels, cam)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _left_and_right(size: int) -> Tensor:
    """Return labels uint8 (1, size, size): foreground on the left, background on the right, a line ignored."""
    labels = torch.zeros(1, size, size, dtype=torch.uint8)
    labels[..., : size // 2] = 1
    labels[:, 0] = 255
    return labels


@pytest.mark.parametrize("resolution", list(LossResolution))
@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_total_is_image_loss_plus_weight_times_pixel_loss_plus_penalty(
    resolution: LossResolution, weight: float
) -> None:
    # The same pixel logits everywhere, (0, ln 3): foreground has probability 3/4, background 1/4.
    ln3 = math.log(3)
    pixels = torch.tensor([0.0, ln3]).view(1, 2, 1, 1).expand(1, 2, 4, 4).clone()
    model = _Fixed(torch.tensor([[ln3, 0.0]]), pixels, penalty=0.25)
    objective = PixelCAMObjective(_section(pixel_loss_weight=weight, loss_resolution=resolution))
    losses = objective(model, _batch(_left_and_right(16)), _generator())
    image_loss = math.log(4 / 3)
    pixel_loss = (5 * math.log(4 / 3) + 5 * math.log(4)) / 10
    assert losses.parts["image_loss"].item() == pytest.approx(image_loss)
    assert losses.parts["pixel_loss"].item() == pytest.approx(pixel_loss)
    assert losses.total.item() == pytest.approx(image_loss + weight * pixel_loss + 0.25)
    assert losses.image_logits is not None
    assert torch.equal(losses.image_logits, model.image_logits)


def test_an_image_without_labels_counts_nothing() -> None:
    labels = torch.cat([_left_and_right(8), torch.full((1, 8, 8), 255, dtype=torch.uint8)])
    # The second image's pixel logits are absurd; none of its pixels may be drawn.
    pixels = torch.zeros(2, 2, 4, 4)
    pixels[1, 0] = 1e4
    losses = PixelCAMObjective(_section())(_Fixed(torch.zeros(2, 2), pixels), _batch(labels), _generator())
    assert losses.parts["pixel_loss"].item() == pytest.approx(math.log(2))
    nothing = _batch(torch.full((1, 8, 8), 255, dtype=torch.uint8))
    losses = PixelCAMObjective(_section())(_Fixed(torch.zeros(1, 2), torch.zeros(1, 2, 4, 4)), nothing, _generator())
    assert losses.parts["pixel_loss"].item() == 0


def test_full_resolution_reads_interpolated_logits_at_one_pixel() -> None:
    labels = torch.full((1, 16, 16), 255, dtype=torch.uint8)
    labels[0, 5, 9] = 1
    logits = torch.randn(1, 2, 4, 4, generator=_generator(3))
    enlarged = interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False)
    expected = cross_entropy(enlarged[:, :, 5, 9], torch.tensor([1]))
    losses = PixelCAMObjective(_section())(_Fixed(torch.zeros(1, 2), logits), _batch(labels), _generator())
    assert losses.parts["pixel_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_feature_resolution_takes_the_label_at_a_cell_and_its_logits_as_they_are() -> None:
    # The centre of cell (1, 2) of a 4x4 grid on 16x16 pixels is pixel (6, 10).
    labels = torch.full((1, 16, 16), 255, dtype=torch.uint8)
    labels[0, 6, 10] = 1
    labels[0, 5, 9] = 0
    logits = torch.randn(1, 2, 4, 4, generator=_generator(3))
    expected = cross_entropy(logits[:, :, 1, 2], torch.tensor([1]))
    objective = PixelCAMObjective(_section(loss_resolution=LossResolution.FEATURE))
    losses = objective(_Fixed(torch.zeros(1, 2), logits), _batch(labels), _generator())
    assert losses.parts["pixel_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_foreground_is_drawn_where_the_cam_is_high() -> None:
    # All is foreground; the CAM is high in the two upper rows, which read the upper cell of the logits alone.
    cam = torch.zeros(1, 8, 8)
    cam[:, :2] = 1
    logits = torch.zeros(1, 2, 2, 2)
    logits[:, 1, 1] = -1e4
    batch = _batch(torch.ones(1, 8, 8, dtype=torch.uint8), cam)
    losses = PixelCAMObjective(_section())(_Fixed(torch.zeros(1, 2), logits), batch, _generator())
    assert losses.parts["pixel_loss"].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("changes", "low_is_drawn"),
    [({}, False), ({"foreground_drawing": "uniform"}, True), ({"redraw": False}, True)],
)
def test_foreground_is_drawn_everywhere_if_uniform_or_if_the_seeds_are_fixed(
    changes: dict[str, object], low_is_drawn: bool
) -> None:
    # All is foreground, and the CAM is zero in the lower half, where the logits are absurd.
    cam = torch.zeros(1, 8, 8)
    cam[:, :4] = 1
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 1, 4:] = -1e4
    batch = _batch(torch.ones(1, 8, 8, dtype=torch.uint8), cam)
    objective = PixelCAMObjective(_section(foreground_pixels=50, **changes))
    loss = objective(_Fixed(torch.zeros(1, 2), logits), batch, _generator()).parts["pixel_loss"].item()
    assert (loss > 1e3) == low_is_drawn


def test_pixels_are_drawn_anew_in_each_step() -> None:
    model = _Fixed(torch.zeros(1, 2), torch.randn(1, 2, 4, 4, generator=_generator(1)))
    objective, batch = PixelCAMObjective(_section()), _batch(_left_and_right(16))

    def losses(seed: int) -> list[float]:
        generator = _generator(seed)
        return [objective(model, batch, generator).parts["pixel_loss"].item() for _ in range(4)]

    assert len(set(losses(0))) == 4
    assert losses(0) == losses(0)
    assert set(losses(0)).isdisjoint(losses(1))


def test_both_heads_get_a_gradient() -> None:
    model = _Fixed(torch.zeros(1, 2), torch.zeros(1, 2, 4, 4))
    PixelCAMObjective(_section())(model, _batch(_left_and_right(16)), _generator()).total.backward()  # type: ignore[no-untyped-call]
    assert model.image_logits.grad is not None
    assert model.pixel_logits.grad is not None
    assert bool(model.image_logits.grad.any())
    assert bool(model.pixel_logits.grad.any())


def test_without_pseudo_labels_there_is_a_sentence() -> None:
    bare = TrainingBatch(torch.zeros(1, 3, 8, 8), torch.zeros(1).long())
    with pytest.raises(PixelCAMError, match="needs pseudo-labels"):
        PixelCAMObjective(_section())(_Fixed(torch.zeros(1, 2), torch.zeros(1, 2, 4, 4)), bare, _generator())


def _home(run: Run) -> PreparedDomain:
    return read_domain("home", tiny_params(run.root / "raw"), run.prepared / "home")


def _train(run: Run, output: Path, changes: Mapping[str, object] | None = None, *, store: Path | None = None) -> Path:
    params = tiny_params(run.root / "raw", changes)
    opened = PseudoLabelStore(store or run.store)
    state = output.with_suffix(".state")
    train_pixelcam(_home(run), store=opened, teacher=run.teacher, params=params, output=output, checkpoints=state)
    return output


PLAIN_SGD = {"train_pixelcam.optimizer": "sgd", "train_pixelcam.weight_decay": 0.0}


def test_weight_0_leaves_the_pixel_head_as_it_was(finished: Run, tmp_path: Path) -> None:
    without = load_file(
        _train(finished, tmp_path / "0", PLAIN_SGD | {"train_pixelcam.pixel_loss_weight": 0.0}) / "model.safetensors"
    )
    shorter = load_file(
        _train(
            finished, tmp_path / "1", PLAIN_SGD | {"train_pixelcam.pixel_loss_weight": 0.0, "train_pixelcam.steps": 1}
        )
        / "model.safetensors"
    )
    with_it = load_file(_train(finished, tmp_path / "2", PLAIN_SGD) / "model.safetensors")
    name = "pixel_head.convolution.weight"
    assert torch.equal(without[name], shorter[name])
    assert not torch.equal(without[name], with_it[name])
    assert not torch.equal(without["image_head.linear.weight"], shorter["image_head.linear.weight"])


def test_it_starts_from_the_teacher(finished: Run, tmp_path: Path) -> None:
    tiny_rates = {"train_pixelcam.learning_rate": 1e-12, "train_pixelcam.head_learning_rate": 1e-12}
    teacher = load_file(finished.teacher / "model.safetensors")
    taught = load_file(_train(finished, tmp_path / "taught", tiny_rates) / "model.safetensors")
    fresh_start = tiny_rates | {"train_pixelcam.initialization": "encoder_weights"}
    fresh = load_file(_train(finished, tmp_path / "fresh", fresh_start) / "model.safetensors")
    learned = [name for name in teacher if name.endswith("weight") and teacher[name].ndim > 1]
    assert "image_head.linear.weight" in learned
    assert all(torch.allclose(taught[name], teacher[name], atol=1e-7) for name in learned)
    assert any(not torch.allclose(fresh[name], teacher[name], atol=1e-5) for name in learned)


def test_its_image_head_is_the_teachers_or_the_params(finished: Run, tmp_path: Path) -> None:
    changes = {"model.image_head": "sat", "train_pixelcam.steps": 1}
    model, info = load_pixelcam(_train(finished, tmp_path / "taught", changes))
    assert info.image_head is model.image_head.name is ImageHeadName.GAP
    changes["train_pixelcam.initialization"] = "encoder_weights"
    model, info = load_pixelcam(_train(finished, tmp_path / "fresh", changes))
    assert info.image_head is model.image_head.name is ImageHeadName.SAT
    assert model(torch.zeros(1, 3, 64, 64)).penalty > 0


def test_a_model_is_written_with_all_that_tells_how_it_came_about(finished: Run) -> None:
    model, info = load_pixelcam(finished.pixelcam)
    assert (info.classes, info.domain) == (("benign", "malignant"), "home")
    assert model(torch.zeros(1, 3, 64, 64)).pixel_logits.shape == (1, 2, 4, 4)
    description = json.loads((finished.pixelcam / "model.json").read_text(encoding="utf-8"))
    assert description["parents"] == {"teacher": weights_sha256(finished.teacher)}
    assert description["params"]["foreground_pixels"] == 30
    history = pd.read_csv(finished.pixelcam / "history.csv")
    assert {"image_loss", "pixel_loss", "val_loss", "val_accuracy"} < set(history.columns)


def test_no_process_goes_on_before_the_model_is_there(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there_when_waiting: list[bool] = []
    monkeypatch.setattr(pixelcam, "wait_for_all", lambda: there_when_waiting.append((tmp_path / "model").is_dir()))
    _train(finished, tmp_path / "model", {"train_pixelcam.steps": 1})
    assert there_when_waiting == [True]


def test_the_same_params_give_the_same_files(finished: Run, tmp_path: Path) -> None:
    assert digests(_train(finished, tmp_path / "again")) == digests(finished.pixelcam)


def test_the_loss_resolution_matters(finished: Run, tmp_path: Path) -> None:
    changes = {"train_pixelcam.loss_resolution": "feature"}
    feature = _train(finished, tmp_path / "feature", changes)
    assert digests(feature)["model.safetensors"] != digests(finished.pixelcam)["model.safetensors"]


def test_fixed_seeds_are_learned_from_in_every_step(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    score = PixelCAMObjective.__call__

    def watch(
        self: PixelCAMObjective, model: nn.Module, batch: TrainingBatch, generator: torch.Generator
    ) -> StepLosses:
        assert batch.pseudo_labels is not None
        seen.extend(((labels == 1).sum().item(), (labels == 0).sum().item()) for labels in batch.pseudo_labels)
        return score(self, model, batch, generator)

    monkeypatch.setattr(PixelCAMObjective, "__call__", watch)
    changes: dict[str, object] = {"redraw": False, "foreground_pixels": 3, "background_pixels": 4}
    changes = {f"train_pixelcam.{name}": value for name, value in changes.items()} | {"augmentation.enlarge": 1.0}
    model = _train(finished, tmp_path / "one", changes)
    assert seen == [(3, 4)] * 8
    assert digests(_train(finished, tmp_path / "two", changes)) == digests(model)


def test_baselines_train_what_they_should_and_leave_the_rest_of_the_teacher(finished: Run, tmp_path: Path) -> None:
    teacher = load_file(finished.teacher / "model.safetensors")
    for approach in Approach:
        changes = {"train_pixelcam.approach": approach.value, "train_pixelcam.steps": 2}
        folder = _train(finished, tmp_path / approach, changes)
        model, info = load_pixelcam(folder)
        decoder = approach is Approach.NEGEV
        assert info.pixel_head is (PixelHeadName.DECODER if decoder else PixelHeadName.LINEAR)
        assert model(torch.zeros(1, 3, 64, 64)).pixel_logits.shape[-1] == (16 if decoder else 4)
        trained = load_file(folder / "model.safetensors")
        frozen = approach in (Approach.TWO_STEP, Approach.NEGEV)
        assert frozen == all(torch.equal(trained[name], teacher[name]) for name in teacher), approach


@pytest.mark.parametrize("head", ["hypercolumn", "decoder"])
def test_a_head_of_choice_learns_together_with_the_encoder(finished: Run, tmp_path: Path, head: str) -> None:
    teacher = load_file(finished.teacher / "model.safetensors")
    folder = _train(finished, tmp_path / head, {"model.pixel_head": head, "train_pixelcam.steps": 2})
    model, info = load_pixelcam(folder)
    assert info.pixel_head == head
    assert model(torch.zeros(1, 3, 64, 64)).pixel_logits.shape == (1, 2, 16, 16)
    trained = load_file(folder / "model.safetensors")
    learned = [name for name in teacher if trained[name].dtype.is_floating_point and "running" not in name]
    assert not any(torch.equal(trained[name], teacher[name]) for name in learned if name.endswith("conv_stem.weight"))
    assert any(name.startswith("pixel_head.") for name in trained)


def test_the_supervised_bound_learns_from_masks_and_not_from_pseudo_labels(finished: Run, tmp_path: Path) -> None:
    changes = {"train_pixelcam.approach": "supervised"}
    expected = digests(_train(finished, tmp_path / "first", changes))
    shutil.copytree(finished.store, tmp_path / "other.zarr")
    group = zarr.open_group(tmp_path / "other.zarr", mode="a")
    labels = group["labels"]
    assert isinstance(labels, zarr.Array)
    labels[...] = 255
    counts = group["counts"]
    assert isinstance(counts, zarr.Array)
    counts[...] = np.broadcast_to([0, 0, 64 * 64], counts.shape)
    assert digests(_train(finished, tmp_path / "second", changes, store=tmp_path / "other.zarr")) == expected
    assert digests(_train(finished, tmp_path / "third", store=tmp_path / "other.zarr")) != expected


def test_another_round_starts_from_the_model_before_and_learns_from_its_map(finished: Run, tmp_path: Path) -> None:
    params = tiny_params(finished.root / "raw")
    store = tmp_path / "round.zarr"
    extract_pseudo_labels(_home(finished), teacher=finished.pixelcam, params=params, output=store)
    opened = PseudoLabelStore(store)
    assert opened.attributes["cam_method"] == "pixelcam"
    model, _ = load_pixelcam(finished.pixelcam)
    (batch,) = ScoredSet(
        Manifest(_home(finished).manifest.of_split(Split.TRAIN).rows[:1], _home(finished).manifest.root),
        image_size=64,
        mask_size=64,
        batch_size=1,
        background_class_idx=None,
    )
    expected = PixelCAMLocalizer(model)(batch.images, batch.class_idx).maps[0].numpy().astype(np.float16)
    np.testing.assert_allclose(opened.read(batch.image_ids[0]).cam, expected, atol=1e-3)
    output = tmp_path / "round_2"
    model_before, state = finished.pixelcam, tmp_path / "state"
    train_pixelcam(_home(finished), store=opened, teacher=model_before, params=params, output=output, checkpoints=state)
    description = json.loads((output / "model.json").read_text(encoding="utf-8"))
    assert description["parents"] == {"teacher": weights_sha256(finished.pixelcam)}


class _PixelNet(nn.Module):
    """The smallest net with both heads: pixels are cells."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
            self.image_head = nn.Linear(8, 2)
            self.pixel_head = nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> PixelCAMOutput:
        features = self.encoder(images)
        image_logits = self.image_head(features.mean(dim=(2, 3)))
        return PixelCAMOutput(image_logits, self.pixel_head(features), torch.zeros(()))


@dataclass(frozen=True)
class _Labels:
    labels: npt.NDArray[np.uint8]
    cam: npt.NDArray[np.float16]


class _TrueMasks:
    """Gives the masks of the home domain as if they were pseudo-labels."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def describe(self) -> dict[str, Any]:
        return {}

    def read(self, image_id: str) -> _Labels:
        mask = read_mask(self.root / image_id.replace("images", "masks"))
        return _Labels(mask.astype(np.uint8), np.ones((4, 4), dtype=np.float16))


def _nowhere(images: Tensor, class_idx: Tensor) -> Localization:
    """A localizer that sees nothing anywhere."""
    return Localization(torch.zeros(len(class_idx), 2), torch.zeros(len(images), 2, 2))


@pytest.mark.parametrize("resolution", list(LossResolution))
def test_the_pixel_head_learns_what_the_labels_say(finished: Run, tmp_path: Path, resolution: LossResolution) -> None:
    source = _home(finished).manifest.of_split(Split.TRAIN)
    section = _section(steps=60, batch_size=6, learning_rate=0.02, head_learning_rate=0.1, loss_resolution=resolution)
    model = _PixelNet()
    history = fit(
        model,
        PixelCAMObjective(section),
        training_set=TrainingSet(
            source, input_size=32, augmentation=NO_AUGMENTATION, seed=0, store=_TrueMasks(source.root)
        ),
        validation=(),
        localizer=_nowhere,
        params=section,
        seed=0,
        fabric=Fabric(accelerator="cpu", devices=1),
        checkpoints=tmp_path,
        label="toy",
    ).history
    assert history["pixel_loss"].iloc[0] > 0.5
    assert history["pixel_loss"].iloc[-1] < 0.2


def _check(run: Run, *, teacher: Path, source: PreparedDomain) -> None:
    check_store(PseudoLabelStore(run.store), teacher=teacher, source=source, pixel_classes=PixelClasses.FOREGROUND)


def test_a_store_of_another_teacher_is_refused(finished: Run, tmp_path: Path) -> None:
    other = tmp_path / "teacher"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"others")
    with pytest.raises(PixelCAMError, match=r"pseudo_labels\.zarr: was made by another teacher than .*run the extract"):
        _check(finished, teacher=other, source=_home(finished))


def test_a_missing_teacher_is_named(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"model\.safetensors: cannot be read"):
        _check(finished, teacher=tmp_path, source=_home(finished))


@pytest.mark.parametrize("change", ["fewer", "another order", "another name"])
def test_a_store_of_other_images_is_refused(finished: Run, change: str) -> None:
    home = _home(finished)
    rows = list(home.manifest.rows)
    match change:
        case "fewer":
            rows = rows[1:]
        case "another order":
            rows[0], rows[1] = rows[1], rows[0]
        case "another name":
            rows[0] = replace(rows[0], image="images/other.png")
    changed = PreparedDomain(home.name, home.classes, None, Manifest(tuple(rows), home.manifest.root))
    with pytest.raises(
        PixelCAMError, match=r"pseudo_labels\.zarr: holds 6 images that are not the \d training images of"
    ):
        _check(finished, teacher=finished.teacher, source=changed)


def test_damaged_pseudo_labels_stop_the_training_and_write_nothing(finished: Run, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    shutil.copytree(finished.store, store)
    for chunk in (store / "labels" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    with pytest.raises(PixelCAMError, match=r"store\.zarr: 'images/train_0\.png' has .* where .* were written"):
        _train(finished, tmp_path / "pixelcam", store=store)
    assert not (tmp_path / "pixelcam").exists()
