"""The stages as programs: the whole chain, alike at every run, and refusals that leave nothing behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from commands import copy_run
from PIL import Image
from safetensors.torch import load_file
from tiny import ROOT, Run, digests, finish_run, prepare_domains, start_run, write_params

from pipeline.params.config import Params, load_params
from pipeline.runtime.console import run as run_program
from stages import evaluate_ood, extract_pseudo_labels, prepare, report, train_pixelcam, train_teacher

PROGRAMS: dict[str, ModuleType] = {
    "prepare": prepare,
    "train_teacher": train_teacher,
    "extract_pseudo_labels": extract_pseudo_labels,
    "train_pixelcam": train_pixelcam,
    "evaluate_ood": evaluate_ood,
    "report": report,
}
Call = Callable[..., str]


def _arguments(run: Run, stage: str) -> tuple[object, ...]:
    """Return a stage's arguments, in the order of dvc.yaml."""
    home = run.prepared / "home"
    metrics = (run.quality, run.scores, run.per_image, run.curves, run.matrix, run.adaptation)
    return {
        "prepare": ("home", run.params, home),
        "train_teacher": (run.params, home, run.teacher, run.checkpoints),
        "extract_pseudo_labels": (run.params, home, run.teacher, run.store, run.quality),
        "train_pixelcam": (run.params, home, run.store, run.teacher, run.pixelcam, run.checkpoints),
        "evaluate_ood": (
            run.params,
            run.prepared,
            run.models,
            run.summary,
            *metrics[1:],
            run.slides,
            run.checkpoints,
        ),
        "report": (
            run.params,
            run.prepared,
            run.store,
            run.models,
            *metrics,
            run.slides,
            run.report,
            run.overview,
            run.overlays,
            run.try_it,
        ),
    }[stage]


def _outputs(run: Run) -> dict[str, str]:
    """Return the digests of all that stages wrote."""
    return {path: digest for path, digest in digests(run.root).items() if not path.startswith(("raw/", "params"))}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a stage that must fail; return its one message, having checked that nothing was written."""

    def call(run: Run, stage: str, *arguments: object) -> str:
        before = _outputs(run)
        capfd.readouterr()
        given = arguments or _arguments(run, stage)
        monkeypatch.setattr("sys.argv", [stage, *(str(argument) for argument in given)])
        with pytest.raises(SystemExit) as caught:
            run_program(PROGRAMS[stage].main)
        assert caught.value.code == 1
        assert _outputs(run) == before
        assert list(run.root.rglob("*.partial")) == []
        out, err = capfd.readouterr()
        assert out == ""
        assert "Traceback" not in err
        assert err.startswith("error: ")
        assert err.count("error: ") == 1
        return err

    return call


def test_the_scores_have_the_agreed_shape(finished: Run) -> None:
    scores = json.loads(finished.scores.read_text(encoding="utf-8"))
    assert {domain: set(models) for domain, models in scores.items()} == {
        "home": {"teacher", "pixelcam"},
        "away": {"teacher", "pixelcam"},
    }
    for models in scores.values():
        for values in models.values():
            for key in ("pxap", "accuracy", "balanced_accuracy", "dice", "iou"):
                assert 0 <= values[key] <= 1
            assert sum(values["predicted_classes"].values()) == pytest.approx(1)


def test_the_page_stands_alone(finished: Run) -> None:
    page = finished.report.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert 'src="http' not in page
    assert "home" in page
    assert "away" in page


def test_every_stage_gives_the_same_bytes_when_it_runs_again(finished: Run, tmp_path: Path) -> None:
    run = copy_run(finished, tmp_path / "again")
    first = _outputs(run)
    assert {path.split("/")[0] for path in first} == {"data", "models", "metrics", "reports"}
    finish_run(run)
    assert _outputs(run) == first


def test_transformers_run_through_without_another_change(tmp_path: Path) -> None:
    run = start_run(tmp_path, {"encoder": "test_vit"})
    finish_run(run)
    assert set(json.loads(run.scores.read_text(encoding="utf-8"))) == {"home", "away"}
    teacher, pixelcam = (load_file(folder / "model.safetensors") for folder in (run.teacher, run.pixelcam))
    assert set(pixelcam) - set(teacher) == {"pixel_head.convolution.weight", "pixel_head.convolution.bias"}


def test_classes_may_have_other_names_in_another_domain(tmp_path: Path) -> None:
    run = start_run(tmp_path, {"domains.away.classes": ["normal", "tumour"], "domains.away.background_class": "normal"})
    table = run.root / "raw/away/table.csv"
    table.write_text(table.read_text().replace("benign", "normal").replace("malignant", "tumour"))
    finish_run(run)
    scores = json.loads(run.scores.read_text(encoding="utf-8"))
    assert set(scores["away"]["pixelcam"]["predicted_classes"]) == {"normal", "tumour"}


# --- what a stage reads is what dvc.yaml says -----------------------------------------------------------------------


@pytest.mark.parametrize("stage", list(PROGRAMS))
def test_a_stage_reads_the_params_that_it_lists(finished: Run, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    described = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    listed = {param.split(".")[0] for param in described.get("do", described)["params"]}
    read: set[str] = set()
    get, dump = Params.__getattribute__, Params.model_dump

    def getting(self: Params, name: str) -> Any:  # noqa: ANN401 - any field
        if name in Params.__pydantic_fields__:
            read.add(name)
        return get(self, name)

    def dumping(self: Params, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - as pydantic has it
        read.update(set(Params.__pydantic_fields__) - options.get("exclude", set()))
        return dump(self, **options)

    def loading(path: Path) -> Params:
        params = load_params(path)
        read.clear()  # checking the file reads all of it
        return params

    monkeypatch.setattr(Params, "__getattribute__", getting)
    monkeypatch.setattr(Params, "model_dump", dumping)
    monkeypatch.setattr(PROGRAMS[stage], "load_params", loading)
    PROGRAMS[stage].main(*_arguments(finished, stage))
    # Later stages ask a domain for its root alone: where its files lie, never what they are.
    assert read - ({"domains"} if stage != "prepare" else set()) <= listed
    assert read


# --- refusals -------------------------------------------------------------------------------------------------------


def _break_params(run: Run) -> None:
    write_params(run, {"seed": "x"})


@pytest.mark.parametrize("stage", list(PROGRAMS))
def test_broken_params_stop_every_stage(started: Run, refused: Call, stage: str) -> None:
    _break_params(started)
    message = refused(started, stage)
    assert "params.yaml: " in message
    assert "seed: " in message


def test_a_missing_raw_file_is_named(started: Run, refused: Call) -> None:
    (started.root / "raw/home/images/train_3.png").unlink()
    assert "train_3.png: does not exist" in refused(started, "prepare")


def test_a_failed_preparation_leaves_the_former_one(started: Run, refused: Call) -> None:
    prepare_domains(started)
    (started.root / "raw/home/masks/test_1.png").write_bytes(b"")
    assert "test_1.png" in refused(started, "prepare")


def test_an_unknown_domain_is_named(started: Run, refused: Call) -> None:
    arguments = ("moon", started.params, started.prepared / "moon")
    assert "there is no 'moon' (there are: away, home)" in refused(started, "prepare", *arguments)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("train_teacher", "home/classes.json: cannot be read"),
        ("extract_pseudo_labels", "home/classes.json: cannot be read"),
        ("train_pixelcam", "home/classes.json: cannot be read"),
        ("evaluate_ood", "home/classes.json: cannot be read"),
        ("report", "home/classes.json: cannot be read"),
    ],
)
def test_a_stage_without_prepared_domains_says_so(started: Run, refused: Call, stage: str, message: str) -> None:
    assert message in refused(started, stage)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("extract_pseudo_labels", "models/teacher/model.json: cannot be read"),
        ("train_pixelcam", "pseudo_labels.zarr: cannot be opened"),
        ("evaluate_ood", "models/teacher/model.json: cannot be read"),
        ("report", "metrics/evaluation.json: cannot be read"),
    ],
)
def test_a_stage_without_what_the_former_ones_make_says_so(
    started: Run, refused: Call, stage: str, message: str
) -> None:
    prepare_domains(started)
    assert message in refused(started, stage)


def test_an_image_changed_after_preparation_is_named(started: Run, refused: Call) -> None:
    prepare_domains(started)
    Image.new("RGB", (72, 60)).save(started.root / "raw/home/images/train_2.png")
    assert "train_2.png: has changed since it was prepared" in refused(started, "train_teacher")


def test_a_mask_changed_after_preparation_is_named(started: Run, refused: Call) -> None:
    finish_run(started)
    Image.new("1", (72, 60)).save(started.root / "raw/away/masks/test_1.png")
    assert "masks/test_1.png: has changed since it was prepared" in refused(started, "evaluate_ood")


def test_pseudo_labels_of_another_teacher_are_refused(finished: Run, tmp_path: Path, refused: Call) -> None:
    run = copy_run(finished, tmp_path / "run")
    params = run.params.read_text(encoding="utf-8")
    run.params.write_text(params.replace("\nseed: 0\n", "\nseed: 5\n"), encoding="utf-8")
    train_teacher.main(run.params, run.prepared / "home", run.teacher, run.checkpoints)
    assert "was made by another teacher" in refused(run, "train_pixelcam")


def test_a_stage_is_a_program_with_help_and_exit_codes(started: Run) -> None:
    def call(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "stages.prepare", *(str(argument) for argument in arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = call(*_arguments(started, "prepare"))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "home: 11 images: train 6, val 2 (2 for selection), test 3\n"
    _break_params(started)
    done = call(*_arguments(started, "prepare"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
