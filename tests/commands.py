"""The command lines of the stages, for tests that run them as programs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from tiny import Run, digests

from pipeline.params.config import load_params
from pipeline.runtime.console import run as run_program
from stages import (
    adapt,
    evaluate_ood,
    extract_pseudo_labels,
    model_cards,
    prepare,
    report,
    train_pixelcam,
    train_teacher,
)

PROGRAMS: dict[str, Callable[..., None]] = {
    "prepare": prepare.main,
    "train_teacher": train_teacher.main,
    "extract_pseudo_labels": extract_pseudo_labels.main,
    "train_pixelcam": train_pixelcam.main,
    "adapt": adapt.main,
    "evaluate_ood": evaluate_ood.main,
    "model_cards": model_cards.main,
    "report": report.main,
}


def stage_commands(run: Run) -> dict[str, list[list[Path | str]]]:
    """Return the command lines of every stage, in the order of dvc.yaml; `adapt` for the domains of the params."""
    home = run.prepared / "home"
    scores = [run.scores, run.per_image, run.curves, run.matrix, run.adaptation]
    models = [run.teacher, run.pixelcam]
    pages = [run.slides, run.report, run.overview, run.overlays, run.try_it]
    return {
        "prepare": [[name, run.params, run.prepared / name] for name in ("home", "away")],
        "train_teacher": [[run.params, home, run.teacher, run.checkpoints]],
        "extract_pseudo_labels": [[run.params, home, run.teacher, run.store, run.quality]],
        "train_pixelcam": [[run.params, home, run.store, run.teacher, run.pixelcam, run.checkpoints]],
        "adapt": [
            [name, run.params, run.prepared / name, *models, run.models / f"adapted_{name}", run.checkpoints]
            for name in load_params(run.params).adaptation
        ],
        "evaluate_ood": [[run.params, run.prepared, run.models, run.summary, *scores, run.slides, run.checkpoints]],
        "model_cards": [[run.params, run.prepared, run.models, run.scores, run.adaptation, run.cards]],
        "report": [[run.params, run.prepared, run.store, run.models, run.quality, *scores, *pages]],
    }


def copy_run(finished: Run, folder: Path) -> Run:
    """Return a finished run of its own, whose stages a test may run again; the raw data are those of the other."""
    shutil.copytree(finished.root, folder, ignore=shutil.ignore_patterns("raw"))
    return Run(folder)


def run_stage(run: Run, stage: str) -> object:
    """Run a stage as a program, in this process, and return its exit code."""
    arguments = [str(argument) for argument in stage_commands(run)[stage][0]]
    with patch("sys.argv", [stage, *arguments]), pytest.raises(SystemExit) as caught:
        run_program(PROGRAMS[stage])
    return caught.value.code


def refusal_of(run: Run, stage: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a stage that must fail; return its one message, having checked that nothing has changed."""
    before = digests(run.root)
    capfd.readouterr()
    assert run_stage(run, stage) == 1
    assert digests(run.root) == before
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err
