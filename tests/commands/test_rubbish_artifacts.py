"""Stores and models that are damaged, strange or of another run: the stages that read them say which one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from commands import copy_run, refusal_of
from safetensors.torch import load_file, save_file
from tiny import Run

Damage = Callable[[Run], object]


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(run: Run) -> None:
        path = run.teacher / "model.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path)

    return damage


def _of_no_finite_value(state: dict[str, torch.Tensor]) -> None:
    state["image_head.linear.weight"][0, 0] = float("nan")


def _of_three_classes(state: dict[str, torch.Tensor]) -> None:
    state["image_head.linear.bias"] = torch.zeros(3)


def _json(path: str, **values: object) -> Damage:
    def damage(run: Run) -> None:
        file = run.root / path
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")

    return damage


def _cut(path: str, share: float) -> Damage:
    def damage(run: Run) -> None:
        content = (run.root / path).read_bytes()
        (run.root / path).write_bytes(content[: int(len(content) * share)])

    return damage


def _flip(path: str) -> Damage:
    def damage(run: Run) -> None:
        content = bytearray((run.root / path).read_bytes())
        content[len(content) // 3] ^= 1
        (run.root / path).write_bytes(content)

    return damage


def _attributes(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(run: Run) -> None:
        group = zarr.open_group(run.store, mode="a")
        values: dict[str, Any] = dict(group.attrs)
        change(values)
        group.attrs.put(values)

    return damage


def _other_labels(run: Run) -> None:
    zarr.open_group(run.store, mode="a")["labels"][0] = np.uint8(0)  # type: ignore[index]


STORE, LABELS = "data/pseudo_labels.zarr", "data/pseudo_labels.zarr/labels/c/0/0/0"
AGAIN = "run the extract_pseudo_labels stage again"
FAULTS: dict[str, tuple[str, Damage, str, str]] = {
    "a shard missing": ("train_pixelcam", lambda run: (run.root / LABELS).unlink(), "background, foreground", AGAIN),
    "a shard truncated": ("train_pixelcam", _cut(LABELS, 0.5), "array 'labels' is damaged", AGAIN),
    "a bit flipped": ("train_pixelcam", _flip(LABELS), "array 'labels' is damaged", AGAIN),
    "an array missing": (
        "train_pixelcam",
        lambda run: shutil.rmtree(run.store / "cam"),
        "lacks the array 'cam' or its description",
        AGAIN,
    ),
    "labels exchanged": ("train_pixelcam", _other_labels, "ignored pixels where", AGAIN),
    "another order of the images": (
        "train_pixelcam",
        _attributes(lambda values: values.update(image_ids=values["image_ids"][::-1])),
        "holds 6 images that are not the 6 training images of 'home', in their order",
        AGAIN,
    ),
    "a store of the future": (
        "train_pixelcam",
        _attributes(lambda values: values.update(schema_version=99)),
        "schema_version is 99, this version reads 1 and 2",
        AGAIN,
    ),
    "a store of the future, in the report": (
        "report",
        _attributes(lambda values: values.update(schema_version=99)),
        "schema_version is 99, this version reads 1 and 2",
        AGAIN,
    ),
    "weights of another shape": (
        "extract_pseudo_labels",
        _weights(_of_three_classes),
        "model.safetensors: expected image_head.linear.bias of shape (2,), got (3,) (1 weights differ)",
        "train the model again",
    ),
    "weights that are no number": (
        "extract_pseudo_labels",
        _weights(_of_no_finite_value),
        "model.safetensors: image_head.linear.weight holds values that are not finite",
        "train the model again",
    ),
    "a pickle": (
        "evaluate_ood",
        lambda run: torch.save({"a": torch.zeros(1)}, run.teacher / "model.safetensors"),
        "model.safetensors: its weights cannot be loaded",
        "train the model again",
    ),
    "weights truncated": (
        "evaluate_ood",
        _cut("models/pixelcam/model.safetensors", 0.9),
        "models/pixelcam/model.safetensors: its weights cannot be loaded",
        "train the model again",
    ),
    "a model of the future": (
        "extract_pseudo_labels",
        _json("models/teacher/model.json", schema_version=99),
        "model.json: schema_version is 99, this version reads 2",
        "train again",
    ),
    "a description cut short": (
        "extract_pseudo_labels",
        _cut("models/teacher/model.json", 0.5),
        "model.json: cannot be read as a model's description",
        "train it again",
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_stage_refuses_an_artifact_by_its_name_with_the_remedy(
    finished: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    run = copy_run(finished, tmp_path / "project")
    stage, damage, said, remedy = FAULTS[fault]
    damage(run)
    message = refusal_of(run, stage, capfd)
    assert str(run.store if AGAIN in remedy else run.models) in message
    assert said in message
    assert remedy in message
