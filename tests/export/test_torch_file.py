"""PyTorch's exported programs: the model's own values without this project's code, and no pickle within."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_nets import images, largest_difference, teacher_network
from tiny import Run

from pipeline.export.network import build_network, trace
from pipeline.export.torch_file import program_of, write_torch_file
from pipeline.metrics.scores import Threshold, ThresholdSource
from pipeline.params.config import load_params
from pipeline.params.vocabulary import CamMethod, ImageHeadName


@pytest.fixture(scope="module")
def written(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("torch_file") / "teacher.pt2"
    threshold = Threshold(0.25, ThresholdSource.MASK_FREE)
    params = load_params(finished.params)
    return path, write_torch_file(path, finished.teacher, params=params, images=images(), threshold=threshold)


def test_a_program_says_what_the_teacher_says(written: tuple[Path, dict[str, Any]], finished: Run) -> None:
    network = build_network(finished.teacher, load_params(finished.params))
    assert largest_difference(network, program_of(written[0], network.output_names)) < 1e-5


def test_a_program_says_what_it_is(written: tuple[Path, dict[str, Any]]) -> None:
    extra = {"pixelcam.json": ""}
    torch.export.load(written[0], extra_files=extra)
    about = json.loads(extra["pixelcam.json"])
    assert about == written[1]
    assert (about["kind"], about["threshold"], about["threshold_from"]) == ("teacher", 0.25, "mask_free")


def test_no_part_of_the_archive_is_a_pickle_or_names_this_machine(written: tuple[Path, dict[str, Any]]) -> None:
    with zipfile.ZipFile(written[0]) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert any(name.endswith("sample_inputs/model.pt") for name in parts)
    for name, content in parts.items():
        assert not content.startswith((b"\x80\x02", b"PK"))
        if not name.endswith(("_config.json",)) and "/weights/" not in name:
            assert str(Path(__file__).parents[2]).encode() not in content


def test_a_gradient_that_onnx_has_no_word_for_is_recorded_all_the_same(tmp_path: Path) -> None:
    network = teacher_network(head=ImageHeadName.LSE, method=CamMethod.LAYERCAM)
    torch.export.save(trace(network), tmp_path / "lse.pt2")
    assert largest_difference(network, program_of(tmp_path / "lse.pt2", network.output_names)) < 1e-5
