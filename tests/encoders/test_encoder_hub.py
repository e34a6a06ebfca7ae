"""Published models: their own weights, arguments and normalization, or a sentence that says how to get them."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
import torch
from fake_hub import MEAN, STD, cut_off, publish, write_model
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from pipeline.encoders import weights as encoder_hub
from pipeline.encoders.encoder import Encoder, EncoderSpec, build_encoder, rebuild_encoder
from pipeline.encoders.weights import CARD_ARGUMENTS, create_trunk, find_model, offline_where_unreachable
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import EncoderWeights

NAME = "hf-hub:owner/tiny"
PATCH_14 = {"patch_size": 14, "img_size": 70, "reg_tokens": 2}


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the hub's empty cache on a machine without network."""
    cut_off(monkeypatch, tmp_path / "cache")
    return tmp_path / "cache"


def build(name: str = NAME, *, size: int = 70, weights: EncoderWeights = EncoderWeights.AUTO) -> Encoder:
    return build_encoder(name, input_size=size, output_stride=None, weights=weights, seed=0).eval()


@pytest.mark.parametrize("weights", [EncoderWeights.AUTO, EncoderWeights.PRETRAINED])
def test_published_model_comes_with_its_weights_arguments_and_normalization(
    cache: Path, weights: EncoderWeights
) -> None:
    published = publish(cache, "owner/tiny", published_arguments=PATCH_14)
    encoder = build(weights=weights)
    own = encoder.trunk.state_dict()
    assert own.keys() == published.keys()
    assert all(torch.equal(own[name], published[name]) for name in published)
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(encoder.std.flatten(), torch.tensor(STD))
    assert encoder.spec.weights == "pretrained (hf-hub:owner/tiny)"
    with torch.inference_mode():
        assert encoder(torch.rand(1, 3, 70, 98)).shape[-2:] == (5, 7)  # patches of 14 pixels


def test_published_model_takes_another_input_size(cache: Path) -> None:
    publish(cache, "owner/tiny", published_arguments=PATCH_14)
    with torch.inference_mode():
        assert build(size=98)(torch.rand(1, 3, 98, 98)).shape[-2:] == (7, 7)


def test_published_model_is_rebuilt_without_the_hub(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(cache, "owner/tiny", published_arguments=PATCH_14)
    encoder = build()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    again = rebuild_encoder(EncoderSpec(**json.loads(json.dumps(asdict(encoder.spec))))).eval()
    again.load_state_dict(encoder.state_dict())
    images = torch.rand(1, 3, 70, 70)
    with torch.inference_mode():
        assert torch.equal(again(images), encoder(images))
    assert again.spec == encoder.spec


def test_random_weights_of_a_published_model_are_drawn_where_asked_for(cache: Path) -> None:
    published = publish(cache, "owner/tiny")
    encoder = build(size=64, weights=EncoderWeights.RANDOM)
    assert encoder.spec.weights == "random"
    assert not torch.equal(encoder.trunk.state_dict()["cls_token"], published["cls_token"])


@pytest.mark.parametrize(
    ("repository", "needed"),
    [
        ("paige-ai/Virchow2", {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}),
        ("bioptimus/H-optimus-0", {"init_values": 1e-5}),
        ("MahmoodLab/UNI", {"init_values": 1e-5}),
    ],
)
def test_arguments_of_a_model_card_are_supplied(
    cache: Path, repository: str, needed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(cache, repository, needed_arguments=needed)
    encoder = build(f"hf-hub:{repository}", size=160)
    own = encoder.trunk.state_dict()
    assert own.keys() == published.keys()
    assert all(torch.equal(own[name], published[name]) for name in published)
    if "mlp_layer" in needed:
        mlp = encoder.trunk.blocks[0].mlp  # type: ignore[index, union-attr]
        assert type(mlp).__name__ == "GluMlp"
        assert isinstance(mlp.act, torch.nn.SiLU)
    monkeypatch.setattr(encoder_hub, "CARD_ARGUMENTS", {})
    with pytest.raises(PixelCAMError, match="does not fit"):
        build(f"hf-hub:{repository}", size=160)


def test_uni2_has_the_shape_of_its_card() -> None:
    with torch.device("meta"):
        trunk = create_trunk("vit_giant_patch14_224", CARD_ARGUMENTS["mahmoodlab/uni2-h"])
    assert trunk.num_features == 1536
    assert trunk.num_prefix_tokens == 9
    assert 680e6 < sum(weights.numel() for weights in trunk.parameters()) < 683e6  # published: 681 million


def test_weights_that_do_not_fill_the_model_are_refused(cache: Path) -> None:
    publish(cache, "owner/tiny")
    file = next(cache.rglob("model.safetensors"))
    state = load_file(file)
    del state["norm.weight"]
    save_file(state, file)
    with pytest.raises(PixelCAMError, match=r"the weights of hf-hub:owner/tiny lacks 'norm.weight'"):
        build(size=64)


def test_model_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    published = write_model(folder, architecture="test_vit", published_arguments={}, needed_arguments={})
    encoder = build(f"local-dir:{folder}", size=64)
    own = encoder.trunk.state_dict()
    assert torch.equal(own["norm.weight"], published["norm.weight"])
    assert torch.equal(own["patch_embed.proj.weight"], published["patch_embed.proj.weight"])
    with pytest.raises(PixelCAMError, match=r"local-dir:.*nowhere cannot be read .*must hold config\.json"):
        build(f"local-dir:{tmp_path / 'nowhere'}")


def failing_hub(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let every question to the hub end with an error."""

    def ask(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(encoder_hub, "getproxies", lambda: {"https": "http://proxy.example:3128"})
    monkeypatch.setattr(huggingface_hub.file_download, "get_hf_file_metadata", ask)


def response(status: int) -> Any:  # noqa: ANN401 - of a client library whose name depends on the hub's version
    return SimpleNamespace(status_code=status, headers={}, request=None)


ACCESS = r"request access at \S+/owner/tiny and run 'hf auth login'"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("weights", list(EncoderWeights))
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError("403 Client Error. Gated.", response=response(403)), rf"is gated.*{ACCESS}"),
        (RepositoryNotFoundError("401 Client Error.", response=response(401)), rf"is gated, private or .*{ACCESS}"),
        (HfHubHTTPError("401 Client Error.", response=response(401)), rf"is gated, private or .*{ACCESS}"),
        (RepositoryNotFoundError("404 Client Error.", response=response(404)), "the hub has no hf-hub:owner/tiny"),
        (
            HfHubHTTPError("503 Server Error.", response=response(503)),
            rf"cannot be fetched .*check the network.*{ACCESS}.*local-dir:FOLDER",
        ),
    ],
)
def test_published_model_that_cannot_be_had_says_how_to_get_it(
    weights: EncoderWeights, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_hub(monkeypatch, error)
    with pytest.raises(PixelCAMError, match=rf"encoder\.name: .*{words}") as caught:
        build(weights=weights)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("cache")
def test_unreachable_hub_is_said() -> None:
    with pytest.raises(PixelCAMError, match=rf"encoder\.name: {NAME} cannot be fetched .*{ACCESS}"):
        build()


def test_model_of_another_library_is_refused(cache: Path) -> None:
    publish(cache, "owner/tiny")
    next(cache.rglob("config.json")).write_text('{"architectures": ["ViTModel"], "model_type": "vit"}')
    with pytest.raises(PixelCAMError, match=r"config\.json of hf-hub:owner/tiny names no timm architecture"):
        build()


@pytest.mark.parametrize("name", ["owner/tiny", "ftp-hub:owner/tiny", "hf-hub:"])
def test_name_of_no_known_source_is_refused(name: str) -> None:
    with pytest.raises(PixelCAMError, match=r"^encoder\.name: .*" + name):
        find_model(name)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("fails", [False, True])
def test_client_is_told_to_stay_offline_where_the_hub_has_no_address(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    seen = []
    try:
        with offline_where_unreachable():
            seen.append(huggingface_hub.constants.HF_HUB_OFFLINE)
            if fails:
                raise OSError("no")
    except OSError:
        assert fails
    assert seen == [True]
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


@pytest.mark.usefixtures("cache")
def test_client_may_ask_a_proxy_where_the_machine_itself_looks_up_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(encoder_hub, "getproxies", lambda: {"https": "http://proxy.example:3128"})
    with offline_where_unreachable():
        assert huggingface_hub.constants.HF_HUB_OFFLINE is False
