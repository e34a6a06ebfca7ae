"""`dvc repro` with nothing to do against `dvc version`, which does nothing but start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.outcome import Outcome, Reach, Skipped, seconds
from benchmarks.settings import Settings
from benchmarks.timing import side_by_side

ONE_STAGE = """stages:
  copy:
    cmd: cp given made
    deps: [given]
    outs: [made]
"""


def measure(settings: Settings) -> Iterator[Outcome | Skipped]:
    """Yield by how many seconds the one is longer, in a clone of this project with its cache."""
    try:
        clone = _tiny_project(settings.scratch) if settings.quick else _clone(settings.project, settings.scratch)
    except subprocess.CalledProcessError as error:
        yield Skipped(
            row="dvc_floor", case="this project", reason=f"{' '.join(error.cmd[-2:])} failed; make repro first"
        )
        return
    times = side_by_side(
        lambda: _dvc(clone, "repro"),
        lambda: _dvc(clone, "version"),
        rounds=settings.rounds(5),
        device=settings.fabric.device,
        warm_up=not settings.quick,
    )
    yield Outcome(
        row="dvc_floor",
        case="one stage" if settings.quick else "this project",
        work="dvc repro, nothing to do",
        against="dvc version",
        figure=median(times.ours) - median(times.theirs),
        unit="seconds above",
        reach=Reach.AT_MOST,
        target=2.0,
        details=seconds(times),
    )


def _clone(project: Path, scratch: Path) -> Path:
    """Clone the last commit, with its outputs from the project's cache, and see that there is nothing to do."""
    clone = scratch / "clone"
    _run(scratch, "git", "clone", "--quiet", str(project), str(clone))
    _dvc(clone, "config", "--local", "cache.dir", str(project / ".dvc/cache"))
    _dvc(clone, "checkout", "--quiet")
    if b"changed" in _dvc(clone, "status"):
        raise subprocess.CalledProcessError(1, ["dvc", "status"])
    return clone


def _tiny_project(scratch: Path) -> Path:
    """Make a project of one stage that has run."""
    (scratch / "dvc.yaml").write_text(ONE_STAGE, encoding="utf-8")
    (scratch / "given").write_text("1", encoding="utf-8")
    _run(scratch, "git", "init", "--quiet")
    _dvc(scratch, "init", "--quiet")
    _dvc(scratch, "repro", "--quiet")
    return scratch


def _dvc(folder: Path, *arguments: str) -> bytes:
    return _run(folder, sys.executable, "-m", "dvc", *arguments)


def _run(folder: Path, *command: str) -> bytes:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True).stdout
