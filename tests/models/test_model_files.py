"""A model's folder: read back as written, alike at every save, whole or not at all, and damage is named."""

import hashlib
import importlib.metadata
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from tiny import digests
from torch import nn

from pipeline.encoders.encoder import EncoderSpec
from pipeline.models.files import ModelInfo, load_weights, read_info, weights_sha256
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import ImageHeadName, PixelClasses, PixelHeadName, Selection, Weights
from pipeline.training import saving
from pipeline.training.checkpoints import Checkpoint, Criterion, Kept
from pipeline.training.loop import TrainingResult
from pipeline.training.saving import save_model, tensors_sha256

INFO = ModelInfo(
    classes=("benign", "malignant"),
    domain="home",
    encoder=EncoderSpec(
        name="test_vit",
        architecture="test_vit",
        arguments={"img_size": 64},
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        input_size=64,
        weights="random",
    ),
    image_head=ImageHeadName.LSE,
    pixel_head=PixelHeadName.DECODER,
    pixel_classes=PixelClasses.IMAGE_CLASSES,
)


class _Section(BaseModel):
    steps: int = 7


def _model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _result(model: nn.Module) -> TrainingResult:
    history = pd.DataFrame({"epoch": [1, 2], "step": [3, 6], "image_loss": [0.5, 1 / 3]})
    selected = model.state_dict()
    last = {name: tensor + 1 for name, tensor in selected.items()}
    kept: dict[Criterion, Kept] = {Selection.VAL_LOSS: Kept(1, selected), Selection.LAST: Kept(2, last)}
    checkpoint = Checkpoint(Path("nowhere"), "0")
    return TrainingResult(kept, Selection.VAL_LOSS, history=history, device="cpu, 32-true", checkpoint=checkpoint)


def _save(folder: Path, result: TrainingResult | None = None) -> None:
    parents = {"teacher": "abc"}
    save_model(folder, result or _result(_model()), info=INFO, params=_Section(), seed=3, parents=parents)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "teacher"
    _save(folder)
    return folder


def test_a_folder_is_read_back_as_written(folder: Path) -> None:
    assert read_info(folder) == INFO
    last = load_file(folder / "last.safetensors")
    assert all(torch.equal(last[name], weights + 1) for name, weights in _model().state_dict().items())


@pytest.mark.parametrize(("pixel_head", "expected"), [("linear", PixelClasses.FOREGROUND), (None, None)])
def test_a_description_without_pixel_classes_is_of_foreground(
    folder: Path, pixel_head: str | None, expected: PixelClasses | None
) -> None:
    path = folder / "model.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    del description["pixel_classes"]
    path.write_text(json.dumps(description | {"pixel_head": pixel_head}), encoding="utf-8")
    assert read_info(folder).pixel_classes is expected
    path.write_text(json.dumps(description | {"pixel_classes": "organs"}), encoding="utf-8")
    with pytest.raises(PixelCAMError, match=r"model\.json: cannot be read as a model's description .*train it again"):
        read_info(folder)


def test_other_weights_that_were_kept_can_be_loaded(folder: Path) -> None:
    expected = _model().state_dict()
    for weights, added in ((Weights.SELECTED, 0), (Weights.VAL_LOSS, 0), (Weights.LAST, 1)):
        other = _model(seed=1)
        load_weights(other, folder, weights)
        assert all(torch.equal(other.state_dict()[name], tensor + added) for name, tensor in expected.items())
    with pytest.raises(PixelCAMError, match=r"val_pxap\.safetensors: was not kept; add val_pxap to keep"):
        load_weights(_model(), folder, Weights.VAL_PXAP)


def test_the_description_says_how_the_model_came_about(folder: Path) -> None:
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    versions = description.pop("versions")
    assert versions["torch"] == torch.__version__.partition("+")[0]  # alike for all builds of a version
    assert description == {
        "class_shares": None,
        "schema_version": 2,
        "classes": ["benign", "malignant"],
        "domain": "home",
        "encoder": {
            "name": "test_vit",
            "architecture": "test_vit",
            "arguments": {"img_size": 64},
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "input_size": 64,
            "weights": "random",
        },
        "image_head": "lse",
        "pixel_head": "decoder",
        "pixel_classes": "image_classes",
        "selection": "val_loss",
        "epochs": {"val_loss": 1, "last": 2},
        "params": {"steps": 7},
        "seed": 3,
        "parents": {"teacher": "abc"},
        "device": "cpu, 32-true",
        "tensors_sha256": tensors_sha256(_model().state_dict()),
    }


def test_versions_are_without_their_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.2+{name}")
    _save(tmp_path / "teacher")
    description = json.loads((tmp_path / "teacher/model.json").read_text(encoding="utf-8"))
    assert set(description["versions"].values()) == {"1.2"}


def test_how_a_model_was_adapted_is_a_file_of_its_own(folder: Path, tmp_path: Path) -> None:
    assert not (folder / "adaptation.json").exists()
    how = {"method": "tent", "epochs": 2}
    save_model(
        tmp_path / "adapted", _result(_model()), info=INFO, params=_Section(), seed=3, parents={}, adaptation=how
    )
    assert json.loads((tmp_path / "adapted/adaptation.json").read_text(encoding="utf-8")) == how


def test_the_hash_over_tensors_is_that_of_their_names_types_shapes_and_values() -> None:
    state = {"b": torch.tensor([[1.0, -2.0]]), "a": torch.tensor(3)}
    said = b"a torch.int64 ()\n" + struct.pack("<q", 3) + b"b torch.float32 (1, 2)\n" + struct.pack("<2f", 1, -2)
    expected = hashlib.sha256(said).hexdigest()
    assert tensors_sha256(state) == expected
    assert tensors_sha256(dict(reversed(state.items()))) == expected
    assert tensors_sha256(state | {"b": torch.tensor([[1.0], [-2.0]]).T}) == expected  # another layout in memory
    for other in (
        {"b": torch.tensor([[1.0, -2.0000002]])},
        {"b": torch.tensor([1.0, -2.0])},
        {"a": torch.tensor(3, dtype=torch.int32)},
        {"c": torch.tensor(3)},
    ):
        assert tensors_sha256(state | other) != expected
    tensors_sha256({"a": torch.zeros(2, dtype=torch.bfloat16), "b": torch.zeros(0)})


def test_the_history_is_a_table_with_six_digits(folder: Path) -> None:
    lines = (folder / "history.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["epoch,step,image_loss", "1,3,0.5", "2,6,0.333333"]


def test_two_saves_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    _save(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(folder)
    assert sorted(digests(folder)) == ["history.csv", "last.safetensors", "model.json", "model.safetensors"]


def test_the_order_of_the_weights_does_not_matter_to_the_bytes(folder: Path, tmp_path: Path) -> None:
    result = _result(_model())
    turned_state = Kept(1, dict(reversed(result.selected.state.items())))
    kept: dict[Criterion, Kept] = {Selection.LAST: result.kept[Selection.LAST], Selection.VAL_LOSS: turned_state}
    turned = replace(result, kept=kept)
    _save(tmp_path / "again", turned)
    assert digests(tmp_path / "again") == digests(folder)


def test_weights_are_known_by_their_sha256(folder: Path) -> None:
    assert weights_sha256(folder) == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _fail_at_second_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def save(state: Any, path: Path) -> None:  # noqa: ANN401 - as safetensors has it
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError("no space left on device")
        save_file(state, path)

    monkeypatch.setattr(saving, "save_file", save)


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_at_second_call(monkeypatch)
    with pytest.raises(OSError, match="no space"):
        _save(tmp_path / "models" / "teacher")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_failed_save_leaves_the_former_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests(folder)
    _fail_at_second_call(monkeypatch)
    with pytest.raises(OSError, match="no space"):
        _save(folder, _result(_model(seed=5)))
    assert digests(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["teacher"]


def test_a_new_model_replaces_every_file_of_the_former(folder: Path) -> None:
    before = digests(folder)
    (folder / "stray.txt").write_text("of an older version", encoding="utf-8")
    _save(folder, _result(_model(seed=5)))
    assert sorted(digests(folder)) == sorted(before)
    assert digests(folder)["model.safetensors"] != before["model.safetensors"]


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        description = json.loads(path.read_text(encoding="utf-8"))
        change(description)
        path.write_text(json.dumps(description), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "cannot be read as a model's description"),
        (lambda path: path.write_text("{"), "cannot be read as a model's description"),
        (lambda path: path.write_text("[]"), "cannot be read as a model's description"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot be read as a model's description"),
        (_edit(lambda values: values.pop("classes")), "classes"),
        (_edit(lambda values: values.pop("schema_version")), "schema_version"),
        (_edit(lambda values: values["encoder"].pop("name")), "name"),
        (_edit(lambda values: values["encoder"].update(colour="red")), "colour"),
        (_edit(lambda values: values.pop("image_head")), "image_head"),
        (_edit(lambda values: values.update(image_head="mean")), "'mean' is not a valid ImageHeadName.*train it again"),
        (_edit(lambda values: values.update(schema_version=1)), "schema_version is 1, this version reads 2; train"),
        (_edit(lambda values: values.update(schema_version=3)), "schema_version is 3, this version reads 2; train"),
    ],
    ids=[
        "missing",
        "half",
        "list",
        "bytes",
        "no classes",
        "no version",
        "no name",
        "new key",
        "no head",
        "unknown head",
        "past",
        "future",
    ],
)
def test_a_damaged_description_is_named(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder / "model.json")
    with pytest.raises(PixelCAMError, match=f"model.json: .*{message}"):
        read_info(folder)


def _rewrite(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        state = load_file(path)
        change(state)
        save_file(state, path)

    return rewrite


def _set_value(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def set_value(state: dict[str, torch.Tensor]) -> None:
        state[name][-1] = value

    return set_value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "cannot be loaded"),
        (lambda path: path.write_bytes(b""), "cannot be loaded"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cannot be loaded"),
        (lambda path: path.write_bytes(b"\xff" * 64), "cannot be loaded"),
        (lambda path: torch.save({"0.bias": torch.zeros(3)}, path), "cannot be loaded"),
        (_rewrite(lambda state: state.pop("0.bias")), r"expected 0.bias of shape \(2,\), got none .1 weights differ"),
        (
            _rewrite(lambda state: state.update(more=torch.zeros(1))),
            r"expected more of shape none, got \(1,\) .1 weights",
        ),
        (
            _rewrite(lambda state: state.update({"0.bias": torch.zeros(3)})),
            r"expected 0.bias of shape \(2,\), got \(3,\) .1 weights differ",
        ),
        (_rewrite(_set_value("0.weight", float("nan"))), "0.weight holds values that are not finite"),
        (_rewrite(_set_value("1.running_var", float("inf"))), "1.running_var holds values that are not finite"),
    ],
    ids=["missing", "empty", "truncated", "garbage", "pickle", "lacking", "surplus", "shape", "nan", "infinite"],
)
def test_damaged_weights_are_named(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder / "model.safetensors")
    with pytest.raises(PixelCAMError, match=f"(?s)model.safetensors: .*{message}.*train the model again"):
        load_weights(_model(), folder)


def test_weights_that_do_not_fit_leave_one_line(folder: Path) -> None:
    with pytest.raises(PixelCAMError) as caught:
        load_weights(nn.Linear(2, 2), folder)
    assert str(caught.value).count("\n") == 0
    assert len(str(caught.value)) < 400


def test_missing_weights_have_no_sha256(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"model\.safetensors: cannot be read .*train the model again"):
        weights_sha256(tmp_path / "nowhere")
