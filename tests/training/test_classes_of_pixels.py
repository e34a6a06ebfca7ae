"""Pixels told apart by image class: the loss by hand, the head that is trained, its maps, stores that do not fit."""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tiny import Run, digests, tiny_params
from torch import Tensor, nn

from pipeline.data.manifest import read_domain
from pipeline.data.training_set import TrainingBatch
from pipeline.models.pixelcam import PixelCAMLocalizer, PixelCAMOutput, load_pixelcam
from pipeline.params.config import MapParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import PixelClasses
from pipeline.pseudo_labels.extraction import extract_pseudo_labels
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.training.pixelcam import PixelCAMObjective, train_pixelcam

CLASSES: dict[str, object] = {"model.pixel_classes": "image_classes"}


def train(run: Run, output: Path, changes: Mapping[str, object], *, store: Path) -> Path:
    params = tiny_params(run.root / "raw", changes)
    home = read_domain("home", params, run.prepared / "home")
    states = output.with_suffix(".state")
    labels = PseudoLabelStore(store)
    train_pixelcam(home, store=labels, teacher=run.teacher, params=params, output=output, checkpoints=states)
    return output


def extract(run: Run, output: Path) -> Path:
    params = tiny_params(run.root / "raw", CLASSES)
    home = read_domain("home", params, run.prepared / "home")
    extract_pseudo_labels(home, teacher=run.teacher, params=params, output=output)
    return output


@pytest.fixture(scope="module")
def classed(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the labels of classes."""
    return extract(finished, tmp_path_factory.mktemp("classed") / "labels.zarr")


@pytest.fixture(scope="module")
def model(finished: Run, classed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learned from it."""
    return train(finished, tmp_path_factory.mktemp("classes") / "pixelcam", CLASSES, store=classed)


class Fixed(nn.Module):
    """Says the same of every image."""

    def __init__(self, pixel_logits: Tensor) -> None:
        super().__init__()
        self.pixel_logits = nn.Parameter(pixel_logits)

    def forward(self, images: Tensor) -> PixelCAMOutput:
        return PixelCAMOutput(torch.zeros(len(images), 3), self.pixel_logits, torch.tensor(0.0))


def test_the_pixel_loss_of_three_classes_by_hand() -> None:
    # Probabilities 1/10, 2/10, 3/10, 4/10 of background and three classes, alike everywhere.
    logits = torch.tensor([1.0, 2.0, 3.0, 4.0]).log().view(1, 4, 1, 1).expand(2, 4, 4, 4).clone()
    labels = torch.zeros(2, 16, 16, dtype=torch.uint8)
    labels[0, :, :8], labels[1, :, :8] = 1, 3  # images of the first and of the third class
    params = tiny_params(Path()).train_pixelcam.model_copy(update={"foreground_pixels": 6, "background_pixels": 2})
    batch = TrainingBatch(torch.zeros(2, 3, 16, 16), torch.tensor([0, 2]), labels, torch.full((2, 16, 16), 0.5))
    losses = PixelCAMObjective(params)(Fixed(logits), batch, torch.Generator().manual_seed(0))
    expected = -(6 * math.log(0.2) + 6 * math.log(0.4) + 4 * math.log(0.1)) / 16
    assert losses.parts["pixel_loss"].item() == pytest.approx(expected)


def test_a_model_says_what_its_pixels_are_and_gives_a_map_for_each_class(model: Path) -> None:
    net, info = load_pixelcam(model)
    assert info.pixel_classes is PixelClasses.IMAGE_CLASSES
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        probabilities = net(images).pixel_logits.softmax(dim=1)
    assert probabilities.shape == (2, 3, 4, 4)
    found = PixelCAMLocalizer(net)(images, torch.zeros(2, dtype=torch.int64))
    assert found.class_maps is not None
    torch.testing.assert_close(found.class_maps, probabilities[:, 1:])
    torch.testing.assert_close(found.maps, 1 - probabilities[:, 0])
    assert float(found.maps.max()) <= 1


def test_maps_of_classes_are_averaged_over_views(model: Path) -> None:
    net, _ = load_pixelcam(model)
    images, class_idx = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(1).long()
    mirrored = PixelCAMLocalizer(net)(images.flip(-1), class_idx).class_maps
    plain = PixelCAMLocalizer(net)(images, class_idx).class_maps
    found = PixelCAMLocalizer(net, MapParams(scales=(1.0,), symmetries=2, margin=0.0))(images, class_idx)
    assert found.class_maps is not None
    assert plain is not None
    assert mirrored is not None
    torch.testing.assert_close(found.class_maps, (plain + mirrored.flip(-1)) / 2)
    torch.testing.assert_close(found.maps, found.class_maps.sum(dim=1))


def test_a_model_of_foreground_has_no_maps_of_classes(finished: Run) -> None:
    net, info = load_pixelcam(finished.pixelcam)
    assert info.pixel_classes is PixelClasses.FOREGROUND
    assert PixelCAMLocalizer(net)(torch.rand(1, 3, 64, 64), torch.zeros(1).long()).class_maps is None


@pytest.mark.parametrize("approach", ["supervised", "negev"])
def test_the_other_approaches_tell_classes_apart_too(
    finished: Run, classed: Path, tmp_path: Path, approach: str
) -> None:
    folder = train(finished, tmp_path / approach, CLASSES | {"train_pixelcam.approach": approach}, store=classed)
    net, _ = load_pixelcam(folder)
    assert net(torch.rand(1, 3, 64, 64)).pixel_logits.shape[1] == 3


def test_labels_of_another_kind_are_refused(finished: Run, classed: Path, tmp_path: Path) -> None:
    words = (
        r"pixel_classes 'image_classes' needs labels of background, benign, malignant, and these are of background, f"
    )
    with pytest.raises(PixelCAMError, match=words + ".*; run the extract_pseudo_labels stage again"):
        train(finished, tmp_path / "pixelcam", CLASSES, store=finished.store)
    with pytest.raises(PixelCAMError, match="'foreground' needs labels of background, foreground, and these"):
        train(finished, tmp_path / "pixelcam", {}, store=classed)
    assert not (tmp_path / "pixelcam").exists()


def test_a_store_of_the_first_schema_trains_the_same_model_and_none_of_classes(finished: Run, tmp_path: Path) -> None:
    store = tmp_path / "labels.zarr"
    shutil.copytree(finished.store, store)
    group = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
    del group["attributes"]["pixel_classes"]
    group["attributes"]["schema_version"] = 1
    (store / "zarr.json").write_text(json.dumps(group), encoding="utf-8")
    assert digests(train(finished, tmp_path / "pixelcam", {}, store=store)) == digests(finished.pixelcam)
    with pytest.raises(PixelCAMError, match="run the extract_pseudo_labels stage again"):
        train(finished, tmp_path / "other", CLASSES, store=store)
