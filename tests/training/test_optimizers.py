"""Optimizer and schedule: every trainable weight has its rate, layer by layer where asked, and nothing else moves."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_params
from torch import nn

from pipeline.encoders.encoder import Encoder, build_encoder
from pipeline.params.config import TrainingParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import EncoderWeights, Frozen, OptimizerName, Schedule
from pipeline.training.optimizers import make_optimizer, make_schedule

PARAMS = tiny_params(
    Path(),
    {
        "train_teacher.learning_rate": 0.001,
        "train_teacher.head_learning_rate": 0.01,
        "train_teacher.weight_decay": 0.01,
        "train_teacher.schedule": "constant",
    },
).train_teacher


class _Net(nn.Module):
    """An encoder with a linear head."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(4, 2)


def _toy() -> _Net:
    return _Net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))


def _net(name: str) -> tuple[_Net, Encoder]:
    encoder = build_encoder(name, input_size=64, output_stride=None, weights=EncoderWeights.RANDOM, seed=0)
    return _Net(encoder), encoder


def _params(**changes: object) -> TrainingParams:
    return PARAMS.model_copy(update=changes)


@pytest.mark.parametrize("optimizer", list(OptimizerName))
def test_encoder_and_heads_have_their_own_rates(optimizer: OptimizerName) -> None:
    model = _toy()
    encoder, heads = make_optimizer(model, _params(optimizer=optimizer)).param_groups
    # The order of the weights counts too: it is part of what makes a run repeatable.
    assert [id(weights) for weights in encoder["params"]] == [id(weights) for weights in model.encoder.parameters()]
    assert [id(weights) for weights in heads["params"]] == [id(weights) for weights in model.head.parameters()]
    assert (encoder["lr"], heads["lr"]) == (0.001, 0.01)
    assert (encoder["weight_decay"], heads["weight_decay"]) == (0.01, 0.01)


def _rates_by_name(model: _Net, params: TrainingParams) -> dict[str, float]:
    """Return the learning rate of every weight that the optimizer has, each in one group only."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    rates: dict[str, float] = {}
    for group in make_optimizer(model, params).param_groups:
        for weight in group["params"]:
            assert names[id(weight)] not in rates
            rates[names[id(weight)]] = group["lr"]
    return rates


def test_rates_of_a_cnn_fall_from_block_to_block() -> None:
    model, _ = _net("resnet18")
    rates = _rates_by_name(model, _params(layer_decay=0.5))
    # timm's groups of a ResNet-18: the stem, then eight blocks, two in each of four stages.
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            blocks_above = 8 - (2 * (stage - 1) + block + 1)
            assert rates[f"encoder.trunk.layer{stage}.{block}.conv1.weight"] == 0.001 * 0.5**blocks_above
    assert rates["encoder.trunk.conv1.weight"] == 0.001 * 0.5**8
    assert rates["head.weight"] == rates["head.bias"] == 0.01
    assert rates.keys() == {name for name, _ in model.named_parameters()}


def test_rates_of_a_transformer_fall_from_block_to_block() -> None:
    model, encoder = _net("test_vit")
    rates = _rates_by_name(model, _params(layer_decay=0.5))
    depth = len(encoder.trunk.blocks)  # type: ignore[arg-type]
    for block in range(depth):
        assert rates[f"encoder.trunk.blocks.{block}.attn.qkv.weight"] == 0.001 * 0.5 ** (depth - 1 - block)
    assert rates["encoder.trunk.norm.weight"] == 0.001
    assert rates["encoder.trunk.pos_embed"] == rates["encoder.trunk.patch_embed.proj.weight"] == 0.001 * 0.5**depth


@pytest.mark.parametrize(
    ("name", "last", "unused"), [("test_convnext", "stages.3.", "head."), ("test_vit3", "norm", "attn_pool.")]
)
def test_layers_are_counted_from_the_feature_map(name: str, last: str, unused: str) -> None:
    # A norm or a pooling of the classifier lies beyond the feature map, in a layer group of its own.
    model, encoder = _net(name)
    encoder.trunk.train()
    rates = _rates_by_name(model, _params(layer_decay=0.5))
    tops = {key for key, rate in rates.items() if rate == 0.001}
    assert any(key.startswith(f"encoder.trunk.{last}") for key in tops)
    missing = {key for key, _ in model.named_parameters()} - rates.keys()
    assert missing
    assert all(key.startswith(f"encoder.trunk.{unused}") for key in missing)
    assert encoder.trunk.training


def test_asking_for_layers_leaves_no_trace() -> None:
    model, encoder = _net("test_efficientnet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    make_optimizer(model, _params(layer_decay=0.5))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert encoder.training


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_a_frozen_encoder_is_not_optimized(layer_decay: float) -> None:
    model, encoder = _net("test_efficientnet")
    encoder.freeze(Frozen.ENCODER)
    (group,) = make_optimizer(model, _params(layer_decay=layer_decay)).param_groups
    assert {id(weights) for weights in group["params"]} == {id(weights) for weights in model.head.parameters()}
    assert group["lr"] == 0.01


def test_a_frozen_head_is_not_optimized() -> None:
    model = _toy()
    model.head.requires_grad_(False)
    (group,) = make_optimizer(model, PARAMS).param_groups
    assert {id(weights) for weights in group["params"]} == {id(weights) for weights in model.encoder.parameters()}


def test_nothing_to_train_is_refused() -> None:
    model = _toy().requires_grad_(False)
    with pytest.raises(PixelCAMError, match=r"frozen: nothing of the model is left to train; freeze less"):
        make_optimizer(model, PARAMS)


def test_layer_decay_without_layer_groups_is_refused() -> None:
    model, encoder = _net("test_efficientnet")
    encoder.trunk = nn.Identity()
    with pytest.raises(PixelCAMError, match=r"layer_decay: .*test_efficientnet; set it to 1\.0"):
        make_optimizer(model, _params(layer_decay=0.9))


def _rates(schedule: Schedule, steps: int) -> list[tuple[float, float]]:
    """Return the rates of encoder and heads that each step takes."""
    params = _params(schedule=schedule, steps=steps)
    optimizer = make_optimizer(_toy(), params)
    scheduler = make_schedule(optimizer, params)
    rates = []
    for _ in range(steps):
        encoder, heads = optimizer.param_groups
        rates.append((float(encoder["lr"]), float(heads["lr"])))
        optimizer.step()
        scheduler.step()
    return rates


def test_a_constant_schedule_is_constant() -> None:
    assert _rates(Schedule.CONSTANT, 5) == [(0.001, 0.01)] * 5


def test_cosine_falls_from_the_peak_towards_zero() -> None:
    # 1 + cos(0, 45, 90, 135 degrees), halved.
    shares = [1.0, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2]
    expected = [(0.001 * share, 0.01 * share) for share in shares]
    assert np.allclose(_rates(Schedule.COSINE, 4), expected)


def test_one_cycle_rises_to_each_peak_and_falls() -> None:
    rates = np.array(_rates(Schedule.ONE_CYCLE, 100))
    assert np.allclose(rates[:, 1], 10 * rates[:, 0])
    assert rates[0, 0] == pytest.approx(0.001 / 25)
    assert rates[:, 0].max() == pytest.approx(0.001, rel=0.01)
    peak = int(rates[:, 0].argmax())
    assert 25 <= peak <= 33
    assert (np.diff(rates[: peak + 1, 0]) > 0).all()
    assert (np.diff(rates[peak:, 0]) < 0).all()
    assert rates[-1, 0] < 0.001 / 100


@pytest.mark.parametrize("schedule", list(Schedule))
def test_a_schedule_keeps_the_ratio_of_the_layers(schedule: Schedule) -> None:
    model, _ = _net("test_efficientnet")
    params = _params(schedule=schedule, layer_decay=0.5, steps=5)
    optimizer = make_optimizer(model, params)
    scheduler = make_schedule(optimizer, params)
    for _ in range(5):
        *layers, heads = scheduler.get_last_lr()
        assert len(layers) == 6
        assert layers == pytest.approx([layers[0] * 0.5**depth for depth in range(6)])
        assert heads == pytest.approx(10 * layers[0])
        optimizer.step()
        scheduler.step()
