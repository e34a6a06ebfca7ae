"""One encoder of each family goes through teacher, store and joint training, on the grid that timm reports."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_hub import cut_off, publish
from tiny import prepare_domains, start_run

from pipeline.encoders.encoder import Encoder, build_encoder
from pipeline.models.pixelcam import load_pixelcam
from pipeline.models.teacher import load_teacher
from pipeline.params.vocabulary import EncoderWeights
from pipeline.pseudo_labels.store import PseudoLabelStore
from stages import extract_pseudo_labels, train_pixelcam, train_teacher


@dataclass(frozen=True)
class Family:
    """A model of a family, the output stride asked for, and the grid that it must give."""

    name: str
    grid: int
    output_stride: int | None = None
    input_size: int = 64
    weights: EncoderWeights = EncoderWeights.RANDOM
    architecture: str = "test_vit"
    arguments: dict[str, Any] = field(default_factory=dict)


# As DINOv2 is built: patches of 14 pixels, layer scale, and register tokens without a position.
DINOV2 = {"patch_size": 14, "img_size": 70, "init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}
FAMILIES = [
    Family("tf_efficientnet_lite0", grid=4, output_stride=16),
    Family("resnet18", grid=8, output_stride=8),
    Family("test_convnext", grid=4, output_stride=16),
    Family("mobilenetv3_small_050", grid=2, output_stride=16),
    Family("test_nfnet", grid=2, output_stride=32),
    Family(
        "hf-hub:owner/swin",
        grid=2,
        weights=EncoderWeights.PRETRAINED,
        architecture="swin_tiny_patch4_window7_224",
        arguments={"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]},
    ),
    Family("test_mambaout", grid=2),  # channels last, like swin, and without attention
    Family("deit_tiny_patch16_224", grid=4),
    Family("test_vit3", grid=4),
    Family("hf-hub:owner/dinov2", grid=5, input_size=70, weights=EncoderWeights.PRETRAINED, arguments=DINOV2),
]


def grid_of_timm(encoder: Encoder, size: int) -> tuple[int, int]:
    """Return the grid of the last feature map as timm itself lays it out."""
    trunk: Any = encoder.trunk
    with torch.inference_mode():
        last = trunk.forward_intermediates(
            torch.zeros(1, 3, size, size), indices=1, output_fmt="NCHW", intermediates_only=True
        )[-1]
    return last.shape[-2], last.shape[-1]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name.rpartition("/")[-1])
def test_family_goes_through_teacher_store_and_joint_training(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(monkeypatch, tmp_path / "cache")
    if family.name.startswith("hf-hub:"):
        repository = family.name.removeprefix("hf-hub:")
        publish(tmp_path / "cache", repository, architecture=family.architecture, published_arguments=family.arguments)
    changes = {
        "encoder.name": family.name,
        "encoder.weights": family.weights.value,
        "model.output_stride": family.output_stride,
        "model.input_size": family.input_size,
        "train_teacher.steps": 2,
        "train_pixelcam.steps": 2,
        "cam.symmetries": 1,
    }
    start = build_encoder(
        family.name,
        input_size=family.input_size,
        output_stride=family.output_stride,
        weights=family.weights,
        seed=0,
    ).eval()
    assert grid_of_timm(start, family.input_size) == (family.grid, family.grid)

    run = start_run(tmp_path, changes)
    prepare_domains(run)
    home = run.prepared / "home"
    train_teacher.main(run.params, home, run.teacher, run.checkpoints)
    cut_off(monkeypatch, tmp_path / "empty")  # from here on nothing may ask the hub
    extract_pseudo_labels.main(run.params, home, run.teacher, run.store, run.quality)
    train_pixelcam.main(run.params, home, run.store, run.teacher, run.pixelcam, run.checkpoints)

    store = PseudoLabelStore(run.store)
    assert all(store.read(image).cam.shape == (family.grid, family.grid) for image in store.image_ids)
    assert max(store.read(image).cam.max() for image in store.image_ids) == 1
    for folder in (run.teacher, run.pixelcam):
        losses = pd.read_csv(folder / "history.csv").filter(like="loss").to_numpy()
        assert losses.size
        assert np.isfinite(losses).all()
    teacher, _ = load_teacher(run.teacher)
    model, _ = load_pixelcam(run.pixelcam)
    with torch.inference_mode():
        images = torch.rand(1, 3, family.input_size, family.input_size)
        assert model(images).pixel_logits.shape == (1, 2, family.grid, family.grid)
    first, second, third = (encoder.trunk.state_dict() for encoder in (start, teacher.encoder, model.encoder))
    assert _share_moved(first, second) > 0.9
    assert _share_moved(second, third) > 0.9


def _share_moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """Return the share of tensors that changed; those beyond the feature map have no gradient."""
    moved = [not torch.equal(before[name], after[name]) for name in before]
    return sum(moved) / len(moved)
