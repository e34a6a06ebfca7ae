"""Batch norm measures a domain anew: its statistics are hand-computed, and nothing else of the model changes."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from pipeline.adaptation.target_statistics import with_target_statistics
from pipeline.encoders.encoder import build_encoder
from pipeline.models.teacher import Teacher, build_teacher
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import EncoderWeights, Frozen, ImageHeadName

CPU = torch.device("cpu")


def _model() -> nn.Sequential:
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    for norm in (model[0], model[3]):
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_mean = torch.full_like(norm.weight, 5.0)
        norm.running_var = torch.full_like(norm.weight, torch.inf)  # whatever it was is forgotten
    return model.eval()


def _teacher(name: str) -> Teacher:
    encoder = build_encoder(name, input_size=64, output_stride=16, weights=EncoderWeights.RANDOM, seed=0)
    return build_teacher(encoder, image_head=ImageHeadName.GAP, classes=2, seed=0).eval()


def _batches(*sizes: int, side: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [number + torch.rand(size, 3, side, side, generator=generator) for number, size in enumerate(sizes)]


def _norm(model: nn.Module, name: str) -> nn.BatchNorm2d:
    norm = model.get_submodule(name)
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def test_statistics_are_means_over_batches_weighed_by_their_images() -> None:
    batches = _batches(4, 4, 1)
    adapted = with_target_statistics(_model(), iter(batches), CPU, asked_by="test")
    means = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches])
    variances = torch.stack([batch.transpose(0, 1).flatten(1).var(dim=1) for batch in batches])
    weights = torch.tensor([[4.0], [4.0], [1.0]]) / 9
    norm = _norm(adapted, "0")
    mean = (means * weights).sum(dim=0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, ((variances + (means - mean) ** 2) * weights).sum(dim=0))


def test_the_first_norm_measures_the_variance_of_all_images_however_they_are_divided() -> None:
    low, high = _batches(4)[0], 3 + _batches(4)[0]
    by_kind, mixed = [low, high], [torch.cat([low[:2], high[:2]]), torch.cat([low[2:], high[2:]])]
    expected = torch.cat([low, high]).transpose(0, 1).flatten(1).var(dim=1, correction=0)
    for batches in (by_kind, mixed):
        norm = _norm(with_target_statistics(_model(), batches, CPU, asked_by="test"), "0")
        torch.testing.assert_close(norm.running_var, expected, rtol=2e-3, atol=0)


def test_only_a_copy_changes_and_only_its_statistics() -> None:
    model = _model().train()
    before = deepcopy(model)
    adapted = with_target_statistics(model, _batches(2, 2), CPU, asked_by="test")
    for other, mode in ((model, True), (adapted, False)):
        assert all(module.training is mode for module in other.modules())
    assert all(
        torch.equal(*pair) for pair in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert all(torch.equal(*pair) for pair in zip(adapted.parameters(), model.parameters(), strict=True))
    assert not any(ours is theirs for ours, theirs in zip(adapted.parameters(), model.parameters(), strict=True))
    assert all((adapted.state_dict()[name] < 5).all() for name in ("3.running_mean", "3.running_var"))
    assert _norm(adapted, "0").momentum == 0.3
    image = _batches(1)[0]
    assert torch.equal(adapted(image), adapted(image)), "statistics must not follow what is scored"


@pytest.mark.parametrize("frozen", [Frozen.NOTHING, Frozen.BATCH_NORM, Frozen.ENCODER])
def test_images_reach_batch_norm_as_the_encoder_normalizes_them(frozen: Frozen) -> None:
    teacher = _teacher("test_efficientnet")
    teacher.encoder.freeze(frozen)
    images = _batches(3, side=64)[0]
    adapted = with_target_statistics(teacher, [images], CPU, asked_by="test")
    stem = teacher.encoder.trunk.get_submodule("conv_stem")
    with torch.no_grad():
        features = stem((images - teacher.encoder.mean) / teacher.encoder.std)
        logits = adapted(images).image_logits
    norm = _norm(adapted.encoder.trunk, "bn1")
    torch.testing.assert_close(norm.running_mean, features.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, features.transpose(0, 1).flatten(1).var(dim=1))
    assert logits.isfinite().all()
    assert not adapted.training


@pytest.mark.parametrize("model", [nn.Conv2d(3, 1, 1), nn.BatchNorm2d(3, track_running_stats=False)])
def test_a_model_without_statistics_is_refused(model: nn.Module) -> None:
    with pytest.raises(PixelCAMError, match="test: statistics of batch norm need a model with batch norm"):
        with_target_statistics(model, _batches(2), CPU, asked_by="test")


def test_a_transformer_is_refused() -> None:
    with pytest.raises(PixelCAMError, match="choose another option"):
        with_target_statistics(_teacher("test_vit"), _batches(2, side=64), CPU, asked_by="test")


def test_a_domain_without_images_is_refused() -> None:
    with pytest.raises(PixelCAMError, match="need images of the domain"):
        with_target_statistics(_model(), [], CPU, asked_by="test")
