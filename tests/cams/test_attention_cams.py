"""Attention CAMs agree with numbers found by hand and with attention computed from a transformer's own weights."""

from typing import Any

import numpy as np
import pytest
import torch
from classifiers import CLASS_IDX, Classifier, make_classifier, make_images, make_request
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.cams.gradient_free import recorded_attention, rollout, tscam
from pipeline.cams.methods import compute_cam
from pipeline.encoders.image_heads import ImageHead
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod

Array = NDArray[np.float64]
# One token in front, two patches. Rows attend to columns.
FIRST = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]])
SECOND = torch.tensor([[0.5, 0, 0.5], [1, 0, 0], [0, 0, 1]])
OTHER = torch.tensor([[0.25, 0.25, 0.5], [0.25, 0.75, 0], [0.5, 0.5, 0]])


class FixedAttention(nn.Module):
    """Attends as told, by two heads whose mean is the given matrix."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.fused_attn = True
        self.attn_drop = nn.Dropout(0.5)
        self.matrix = matrix

    def forward(self, images: Tensor) -> Tensor:
        if not self.fused_attn:
            heads = torch.stack([OTHER, 2 * self.matrix - OTHER])
            self.attn_drop(heads.expand(len(images), -1, -1, -1))
        return images


class FixedEncoder(nn.Module):
    """Two layers of attention and a feature map of 1x2 cells."""

    depths = 1

    def __init__(self, *, class_token: bool) -> None:
        super().__init__()
        self.trunk = nn.Sequential(FixedAttention(FIRST), FixedAttention(SECOND))
        self.trunk.num_prefix_tokens = 1  # type: ignore[assignment]
        if class_token:
            self.trunk.cls_token = nn.Parameter(torch.zeros(1))

    def resolve_layer(self, _layer: int) -> int:
        return 0

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(images)[:, :, :1, :2]  # type: ignore[no-any-return]


class FixedHead(ImageHead):
    """The class maps are the first two values of the image's channels."""

    def __init__(self) -> None:
        super().__init__(channels=3, classes=3)

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))

    def class_maps(self, features: Tensor) -> Tensor:
        return features


def fixed_classifier(*, class_token: bool) -> Classifier:
    return Classifier(FixedEncoder(class_token=class_token), FixedHead())  # type: ignore[arg-type]


@pytest.mark.parametrize(("class_token", "expected"), [(True, [0.375, 0.25]), (False, [0.375, 0.5])])
def test_rollout_by_hand(class_token: bool, expected: list[float]) -> None:
    # Half of each matrix and half of the identity: [[1/2, 1/2, 0], [0, 1, 0], [0, 0, 1]], then
    # [[3/4, 0, 1/4], [1/2, 1/2, 0], [0, 0, 1]]; the second times the first has the rows
    # [3/8, 3/8, 1/4], [1/4, 3/4, 0], [0, 0, 1].
    net = fixed_classifier(class_token=class_token)
    maps, logits = rollout(make_request(net, make_images(2, 4, 4)))
    assert maps[0].tolist() == [[expected]] * 2
    assert logits.shape == (2, 3)


@pytest.mark.parametrize(("class_token", "attention"), [(True, [0.5, 0.25]), (False, [0.25, 0.5])])
def test_tscam_by_hand(class_token: bool, attention: list[float]) -> None:
    # The mean of the matrices has the rows [1/4, 1/2, 1/4], [1/2, 1/2, 0], [0, 0, 1].
    net, images = fixed_classifier(class_token=class_token), make_images(2, 4, 4)
    (found,), _ = tscam(make_request(net, images))
    class_maps = torch.stack([images[row, CLASS_IDX[row], :1, :2] for row in range(2)])
    torch.testing.assert_close(found, class_maps * torch.tensor(attention))


def attention_by_hand(net: Classifier, images: Tensor) -> list[Array]:
    """Return each layer's attention (B, N, N), mean over heads, from the queries and keys that its weights make."""
    matrices: list[Array] = []

    def attend(attention: nn.Module, inputs: tuple[Tensor]) -> None:
        module: Any = attention
        tokens = inputs[0].detach().double().numpy()
        weight, bias = (each.detach().double().numpy() for each in (module.qkv.weight, module.qkv.bias))
        heads, width = module.num_heads, tokens.shape[2]
        projected = (tokens @ weight.T + bias)[:, :, : 2 * width]
        queries, keys = projected.reshape(*tokens.shape[:2], 2, heads, width // heads).transpose(2, 0, 3, 1, 4)
        scores = queries @ keys.swapaxes(2, 3) / np.sqrt(width // heads)
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        matrices.append((powers / powers.sum(axis=-1, keepdims=True)).mean(axis=1))

    blocks: Any = net.encoder.trunk.blocks
    handles = [block.attn.register_forward_pre_hook(attend) for block in blocks]
    net(images)
    for handle in handles:
        handle.remove()
    return matrices


def patch_row(matrix: Array, *, prefix: int, class_token: bool) -> Array:
    return matrix[:, 0, prefix:] if class_token else matrix[:, prefix:, prefix:].mean(axis=1)


def assert_agrees(found: Tensor, expected: Array) -> None:
    flat = expected.reshape(len(found), -1)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    np.testing.assert_allclose(found.flatten(1).numpy(), (flat - low) / (high - low), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "cell", "prefix", "class_token"),
    [
        ("deit_tiny_patch16_224", 16, 1, True),
        ("vit_small_patch14_reg4_dinov2", 14, 5, True),
        ("test_vit2", 16, 1, False),  # a register token, no class token
    ],
)
def test_agrees_with_attention_from_the_weights(name: str, cell: int, prefix: int, class_token: bool) -> None:
    net, images = make_classifier(name, size=4 * cell), make_images(3, 3 * cell, 4 * cell)
    matrices = attention_by_hand(net, images)
    assert matrices[0].shape == (3, prefix + 12, prefix + 12)
    flow = np.eye(prefix + 12)
    for matrix in matrices:
        flow = (matrix + np.eye(prefix + 12)) / 2 @ flow
    cams, logits = compute_cam(net.encoder, net.head, images, CLASS_IDX[:3], method=CamMethod.ROLLOUT)
    assert cams.shape == (3, 3, 4)
    assert_agrees(cams, patch_row(flow, prefix=prefix, class_token=class_token))
    with torch.inference_mode():
        torch.testing.assert_close(logits, net(images), rtol=1e-4, atol=1e-4)
        class_maps = net.head.class_maps(net.encoder(images))[torch.arange(3), CLASS_IDX[:3]].double().numpy()
    cams, _ = compute_cam(net.encoder, net.head, images, CLASS_IDX[:3], method=CamMethod.TSCAM)
    attention = patch_row(np.mean(matrices, axis=0), prefix=prefix, class_token=class_token)
    assert_agrees(cams, attention * class_maps.reshape(3, -1))


@pytest.mark.parametrize("method", [CamMethod.ROLLOUT, CamMethod.TSCAM])
@pytest.mark.parametrize("name", ["test_efficientnet", "swin_tiny_patch4_window7_224"])
def test_encoder_without_attention_between_all_patches_is_refused(method: CamMethod, name: str) -> None:
    net = make_classifier(name, size=64)
    flags = [getattr(module, "fused_attn", None) for module in net.modules()]
    with pytest.raises(PixelCAMError, match=rf"cam\.method: {method} .*{name} .*use a plain vision transformer"):
        compute_cam(net.encoder, net.head, make_images(1, 64, 64), CLASS_IDX[:1], method=method)
    assert [getattr(module, "fused_attn", None) for module in net.modules()] == flags


def test_recording_ends_with_the_block() -> None:
    encoder = FixedEncoder(class_token=True).eval()
    encoder.trunk[1].fused_attn = False  # type: ignore[assignment]
    with recorded_attention(encoder) as matrices:
        encoder(make_images(1, 4, 4))
    assert [len(matrices), encoder.trunk[0].fused_attn, encoder.trunk[1].fused_attn] == [2, True, False]
    encoder(make_images(1, 4, 4))
    assert len(matrices) == 2
