"""Fixed seeds: the same few pixels in every epoch and order, other ones per image and seed, none lost on the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import NO_AUGMENTATION, noise_images, tiny_params, write_images

from pipeline.data.maps import resize_labels
from pipeline.data.training_set import TrainingSet
from pipeline.params.vocabulary import Drawing
from pipeline.pseudo_labels.drawing import FixedSeeds

SIDE = 24
IMAGES = tuple(f"{number}.png" for number in range(5))


@dataclass(frozen=True)
class _Labels:
    labels: npt.NDArray[np.uint8]
    cam: npt.NDArray[np.float16]


class _Halves:
    """Every image is foreground above and background below, with a line between, and has a CAM that rises upwards."""

    def describe(self) -> dict[str, Any]:
        return {}

    def read(self, image_id: str) -> _Labels:
        assert image_id in IMAGES
        labels = np.full((SIDE, SIDE), 255, dtype=np.uint8)
        labels[:11], labels[13:] = 1, 0
        return _Labels(labels, np.repeat(np.linspace(1, 0, 6, dtype=np.float16)[:, None] ** 4, 6, axis=1))


def _seeds(changes: Mapping[str, object] | None = None, *, seed: int = 0) -> FixedSeeds:
    values: dict[str, object] = {"foreground_pixels": 7, "background_pixels": 4, "foreground_drawing": "cam"}
    values |= changes or {}
    params = tiny_params(Path(), {f"train_pixelcam.{key}": value for key, value in values.items()})
    return FixedSeeds(_Halves(), params.train_pixelcam, seed)


def test_as_many_pixels_are_kept_as_a_step_draws_each_with_its_label() -> None:
    stored, kept = _Halves().read("0.png"), _seeds().read("0.png")
    assert kept.labels.dtype == np.uint8
    assert kept.labels.shape == (SIDE, SIDE)
    assert [(kept.labels == value).sum() for value in (1, 0, 255)] == [7, 4, SIDE * SIDE - 11]
    chosen = kept.labels != 255
    assert np.array_equal(kept.labels[chosen], stored.labels[chosen])
    assert np.array_equal(kept.cam, stored.cam)


def test_all_are_kept_where_there_are_too_few() -> None:
    wanted: dict[str, object] = {"foreground_pixels": 1000, "background_pixels": 1000}
    assert np.array_equal(_seeds(wanted).read("0.png").labels, _Halves().read("0.png").labels)


def test_seeds_stay_the_same_in_any_order() -> None:
    one, other = _seeds(), _seeds()
    first = {image_id: one.read(image_id).labels for image_id in IMAGES}
    for image_id in reversed(IMAGES):
        assert np.array_equal(other.read(image_id).labels, first[image_id])
        assert np.array_equal(one.read(image_id).labels, first[image_id])


def test_images_and_seeds_have_pixels_of_their_own() -> None:
    drawn = {_seeds(seed=seed).read(image_id).labels.tobytes() for seed in (0, 1) for image_id in IMAGES}
    assert len(drawn) == 10


def test_what_determines_them_is_described() -> None:
    described = [seeds.describe() for seeds in (_Halves(), _seeds(), _seeds(seed=1))]
    assert len({tuple(sorted(each.items())) for each in described}) == 3


def test_foreground_follows_the_cam_or_does_not() -> None:
    def mean_row(drawing: Drawing) -> float:
        labels = [_seeds({"foreground_drawing": drawing.value}, seed=seed).read("0.png").labels for seed in range(60)]
        return float(np.mean([np.nonzero(one == 1)[0].mean() for one in labels]))

    # Rows 0 to 10 drawn alike have their mean at 5; the CAM is higher above.
    assert mean_row(Drawing.UNIFORM) == pytest.approx(5, abs=0.45)
    assert mean_row(Drawing.CAM) < 4


def _labels_of(seeds: FixedSeeds, root: Path, *, epoch: int, enlarge: float) -> dict[int, torch.Tensor]:
    augmentation = NO_AUGMENTATION.model_copy(update={"enlarge": enlarge})
    training_set = TrainingSet(
        write_images(root, noise_images(len(IMAGES))),
        input_size=SIDE,
        augmentation=augmentation,
        seed=0,
        store=seeds,
    )
    found: dict[int, torch.Tensor] = {}
    for batch in training_set.batches(epoch, 1):
        assert batch.pseudo_labels is not None
        found[int(batch.class_idx)] = batch.pseudo_labels[0]
    return found


def test_every_epoch_learns_from_the_same_pixels(tmp_path: Path) -> None:
    seeds = _seeds()
    first, second = (_labels_of(seeds, tmp_path, epoch=epoch, enlarge=1) for epoch in (1, 2))
    for number, labels in first.items():
        assert torch.equal(labels, second[number])
        assert np.array_equal(labels.numpy(), seeds.read(IMAGES[number]).labels)


@pytest.mark.parametrize("side", [SIDE, SIDE + 1, round(1.143 * SIDE), 2 * SIDE])
def test_no_seed_is_lost_when_labels_are_enlarged(side: int) -> None:
    # A map that gives every pixel a value of its own still holds all of them.
    values = torch.arange(SIDE * SIDE).view(SIDE, SIDE)
    assert set(resize_labels(values, (side, side)).flatten().tolist()) == set(range(SIDE * SIDE))
