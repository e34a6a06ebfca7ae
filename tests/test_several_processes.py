"""Two processes give what one gives: the same bytes where nothing is learned, the same weights but for rounding."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from imports import ROOT
from parallel_run import ADAPTING, CHAIN_SEED, TEACHERS, do_all, params_of
from PIL import Image
from safetensors.torch import load_file
from tiny import Run, digests

from pipeline.data.manifest import read_domain
from pipeline.models.files import weights_sha256
from pipeline.pseudo_labels.extraction import extract_pseudo_labels

START = "import sys; from pipeline.runtime.processes import start_processes; sys.exit(start_processes(2, sys.argv[1:]))"
PROGRAM = Path(__file__).with_name("parallel_run.py")
ADAPTED = tuple(f"adapted/{method}/{method}" for method in ADAPTING if method != "batch_norm")
TRAININGS = (*TEACHERS, "pixelcam", "chain/teacher", *ADAPTED)


@dataclass(frozen=True)
class _Both:
    """What one process made, what two made, and what the two said."""

    one: Path
    two: Path
    said: str


def _run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | path | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def both(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> _Both:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    do_all(finished, one)
    done = _run("-c", START, str(PROGRAM), str(finished.root), str(two))
    assert done.returncode == 0, done.stderr
    return _Both(one, two, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "store.zarr",
        "quality.json",
        "scores.json",
        "per_image.csv",
        "curves.csv",
        "adapted/batch_norm/batch_norm/model.safetensors",
    ],
)
def test_pseudo_labels_and_scores_are_the_same_bytes(both: _Both, name: str) -> None:
    one, two = (
        {path: sha for path, sha in digests(root).items() if path.startswith(name)} for root in (both.one, both.two)
    )
    assert one == two
    assert one


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_end_with_the_same_weights(both: _Both, name: str) -> None:
    for path in sorted((both.one / name).glob("*.safetensors")):
        one, two = load_file(path), load_file(both.two / name / path.name)
        assert one.keys() == two.keys()
        for tensor in one:
            torch.testing.assert_close(two[tensor], one[tensor], rtol=0, atol=1e-5)
    before, after = (pd.read_csv(root / name / "history.csv") for root in (both.one, both.two))
    assert before["step"].tolist()[-3:] == [1, 2, 3]
    pd.testing.assert_frame_equal(before, after, rtol=1e-4)


@pytest.mark.slow
def test_a_repeated_chain_has_the_pseudo_labels_of_its_own_teacher(both: _Both, finished: Run, tmp_path: Path) -> None:
    chain, store = both.two / "chain", tmp_path / "store"
    assert {path for path in digests(chain) if "zarr" not in path} == {
        path for path in digests(both.one / "chain") if "zarr" not in path
    }
    params = params_of(finished, {})
    home = replace(read_domain("home", params, finished.prepared / "home"), background_class_idx=1)
    extract_pseudo_labels(home, teacher=chain / "teacher", params=params, output=store)
    assert digests(chain / "pseudo_labels_pixelcam.zarr") == digests(store)
    written = json.loads((chain / "pixelcam/model.json").read_text(encoding="utf-8"))
    assert written["seed"] == CHAIN_SEED
    assert written["parents"] == {"teacher": weights_sha256(chain / "teacher")}
    assert not list((both.two / "checkpoints").iterdir())


@pytest.mark.slow
def test_what_was_learned_is_more_than_rounding(both: _Both, finished: Run) -> None:
    start, end = load_file(finished.teacher / "model.safetensors"), load_file(both.two / "pixelcam/model.safetensors")
    assert max(float((end[name] - start[name]).abs().max()) for name in start) > 1e-3


@pytest.mark.slow
def test_the_first_process_speaks_for_all_and_the_model_says_how_many_there_were(both: _Both) -> None:
    assert both.said.count("frozen: test_convnext has no batch norm") == 1
    one, two = (
        json.loads((root / "pixelcam/model.json").read_text(encoding="utf-8"))["device"]
        for root in (both.one, both.two)
    )
    assert two == f"{one}, 2 processes"
    assert [path for path in digests(both.two) if path not in digests(both.one)] == []


@pytest.mark.slow
def test_a_stage_starts_its_processes_and_a_fault_of_one_is_told_once_and_ends_all(
    finished: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    for part in ("raw", "data", "models"):
        shutil.copytree(finished.root / part, tmp_path / part)
    params = finished.params.read_text(encoding="utf-8").replace(str(finished.root), str(tmp_path))
    run.params.write_text(params, encoding="utf-8")
    for manifest in run.prepared.rglob("*"):
        if manifest.is_file():
            text = manifest.read_text(encoding="utf-8").replace(str(finished.root), str(tmp_path))
            manifest.write_text(text, encoding="utf-8")
    broken = tmp_path / "raw/home/images/train_5.png"
    Image.new("RGB", (72, 60)).save(broken)
    before = digests(run.store.parent)
    arguments = [run.params, run.prepared / "home", run.teacher, run.store, run.quality]
    done = _run("-m", "stages.extract_pseudo_labels", *map(str, arguments), PIXELCAM_PROCESSES="2")
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"error: {broken}: has changed since it was prepared")
    assert digests(run.store.parent) == before
    assert not run.quality.exists()
