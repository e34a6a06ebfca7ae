"""Test-time options as evaluation uses them: models and images are adapted without a look at any label."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import tiny_params
from torch import Tensor

from pipeline.adaptation.target_statistics import with_target_statistics
from pipeline.data.maps import EvaluationBatch, Localization, scale_images
from pipeline.encoders.encoder import build_encoder
from pipeline.evaluation.at_test_time import (
    Adapter,
    StainNormalizedLocalizer,
    fit_stain_normalization,
)
from pipeline.metrics.scores import ModelName
from pipeline.models.loading import as_localizer
from pipeline.models.pixelcam import PixelCAM, build_pixelcam
from pipeline.models.teacher import Teacher, build_teacher
from pipeline.params import vocabulary
from pipeline.params.config import Params

CPU = torch.device("cpu")
SCALE = 1.5
Models = dict[ModelName, Teacher | PixelCAM]


@pytest.fixture(scope="module")
def params() -> Params:
    return tiny_params(Path("raw"), {"cam.scales": [1.0, SCALE]})


@pytest.fixture(scope="module")
def models() -> Models:
    encoder = build_encoder(
        "test_efficientnet", input_size=64, output_stride=16, weights=vocabulary.EncoderWeights.RANDOM, seed=0
    )
    teacher = build_teacher(encoder, image_head=vocabulary.ImageHeadName.GAP, classes=2, seed=0).eval()
    pixelcam = build_pixelcam(encoder, teacher.image_head, vocabulary.PixelHeadName.LINEAR, seed=0).eval()
    return {ModelName.TEACHER: teacher, ModelName.PIXELCAM: pixelcam}


def _tissue(seed: int) -> npt.NDArray[np.uint8]:
    """Return an image, uint8 (96, 96, 3), of two stains whose colours depend on the seed."""
    generator = np.random.default_rng(seed)
    stains = np.array([[0.6, 0.7, 0.3], [0.1, 0.9, 0.2]]) + generator.uniform(0, 0.1, (2, 3))
    nuclei = np.kron(generator.random((12, 12)) < 0.4, np.ones((8, 8))).astype(bool)[..., None]
    amounts = np.where(
        nuclei, generator.uniform(0, (1.3, 0.2), (96, 96, 2)), generator.uniform(0, (0.1, 1), (96, 96, 2))
    )
    return (240 * np.exp(-amounts @ stains)).astype(np.uint8)


@pytest.fixture(scope="module")
def batches() -> list[EvaluationBatch]:
    images = torch.from_numpy(np.stack([_tissue(seed) for seed in range(3)])).permute(0, 3, 1, 2).float() / 255
    return [
        EvaluationBatch(
            image_ids=tuple(f"{start}{number}" for number in range(len(part))),
            images=part,
            class_idx=torch.arange(len(part)) % 2,
            masks=torch.zeros(len(part), 32, 32, dtype=torch.bool),
            has_mask=torch.ones(len(part), dtype=torch.bool),
        )
        for start, part in (("a", images[:2]), ("b", images[2:]))
    ]


def _no_source() -> Sequence[npt.NDArray[np.uint8]]:
    raise AssertionError("the source's images are not needed")


def _equal(ours: Localization, theirs: Localization) -> bool:
    return torch.equal(ours.maps, theirs.maps) and torch.equal(ours.image_logits, theirs.image_logits)


def test_a_model_of_another_precision_sees_the_same_images() -> None:
    seen: list[Tensor] = []

    def localizer(images: Tensor, class_idx: Tensor) -> Localization:
        del class_idx
        seen.append(images)
        return Localization(torch.ones(1, 2), torch.zeros(1, 4, 4))

    normalization = fit_stain_normalization(vocabulary.TestTime.MACENKO, [_tissue(7)])
    normalized = StainNormalizedLocalizer(localizer, normalization)
    images, class_idx = torch.from_numpy(_tissue(1)).permute(2, 0, 1)[None].float() / 255, torch.tensor([1])
    normalized(images, class_idx)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        normalized(images, class_idx)
    assert seen[1].dtype == torch.float32
    assert torch.equal(seen[1], seen[0])
    assert not torch.equal(seen[1], images)


def test_none_changes_nothing(models: Models, params: Params, batches: list[EvaluationBatch]) -> None:
    adapter = Adapter(vocabulary.TestTime.NONE, params, image_scale=SCALE, source=_no_source)
    localizers = adapter(models, batches, device=CPU)
    assert list(localizers) == list(models)
    for name, model in models.items():
        plain = as_localizer(model, params, image_scale=SCALE)
        assert _equal(*(each(batches[0].images, batches[0].class_idx) for each in (localizers[name], plain)))


@pytest.mark.parametrize("option", [vocabulary.TestTime.MACENKO, vocabulary.TestTime.REINHARD])
def test_stains_are_normalized_to_the_source(
    option: vocabulary.TestTime, models: Models, params: Params, batches: list[EvaluationBatch]
) -> None:
    source = [_tissue(7), _tissue(8)]
    adapter = Adapter(option, params, image_scale=SCALE, source=lambda: source)
    localizers = adapter(models, [], device=CPU)
    images, class_idx = batches[0].images, batches[0].class_idx
    normalized = fit_stain_normalization(option, source)(images)
    assert not torch.equal(normalized, images)
    for name, model in models.items():
        plain = as_localizer(model, params, image_scale=SCALE)
        assert _equal(localizers[name](images, class_idx), plain(normalized, class_idx))


def test_batch_norm_measures_the_domain_at_input_size_without_its_labels(
    models: Models, params: Params, batches: list[EvaluationBatch]
) -> None:
    adapter = Adapter(vocabulary.TestTime.BATCH_NORM, params, image_scale=SCALE, source=_no_source)
    before = {name: [value.clone() for value in model.state_dict().values()] for name, model in models.items()}
    localizers = adapter(models, batches, device=CPU)
    other = [
        replace(each, class_idx=1 - each.class_idx, masks=~each.masks, has_mask=~each.has_mask) for each in batches
    ]
    unlabelled = adapter(models, other, device=CPU)
    images, class_idx = batches[0].images, batches[0].class_idx
    for name, model in models.items():
        small = [scale_images(batch.images, 1 / SCALE) for batch in batches]
        assert small[0].shape[-1] == 64
        adapted = as_localizer(with_target_statistics(model, small, CPU, asked_by="test"), params, image_scale=SCALE)
        found = localizers[name](images, class_idx)
        assert _equal(found, adapted(images, class_idx))
        assert _equal(found, unlabelled[name](images, class_idx))
        assert not _equal(found, as_localizer(model, params, image_scale=SCALE)(images, class_idx))
        assert all(torch.equal(*pair) for pair in zip(model.state_dict().values(), before[name], strict=True))
