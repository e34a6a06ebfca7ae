"""Stages killed at random moments: what they leave is whole or absent, and the next run ends with the same bytes.

A few kills by default. By hand, with many: PIXELCAM_KILLS=60 pytest tests/test_killed.py
"""

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from commands import PROGRAMS, stage_commands
from tiny import Run, adapting, digests, start_run

KILLS = int(os.environ.get("PIXELCAM_KILLS", "7"))
STAGES = ("prepare", "train_teacher", "extract_pseudo_labels", "train_pixelcam", "adapt", "evaluate_ood", "report")
# Longer than one epoch, so that a training has something to go on from.
CHANGES = {"train_teacher.steps": 12, "train_pixelcam.steps": 12, **adapting(steps=12)}


# A process that has imported what stages import, and is copied for each of them: kills fall into their work alone.
CONTEXT = multiprocessing.get_context("forkserver")


def _start(stage: str, arguments: list[Path | str]) -> BaseProcess:
    process = CONTEXT.Process(target=PROGRAMS[stage], args=tuple(arguments))
    process.start()
    return process


def _finish(stage: str, arguments: list[Path | str]) -> float:
    """Run a stage to its end and return how long it took, in seconds."""
    began = time.monotonic()
    process = _start(stage, arguments)
    process.join()
    assert process.exitcode == 0, stage
    return time.monotonic() - began


def _kill(stage: str, arguments: list[Path | str], seconds: float) -> None:
    """Start a stage and kill it after some time, if it has not ended by then."""
    process = _start(stage, arguments)
    process.join(seconds)
    process.kill()
    process.join()


def _outputs(run: Run) -> dict[str, str]:
    """Return the digests of what the stages made, without what a kill may leave beside it."""
    made = digests(run.root).items()
    return {path: digest for path, digest in made if not path.startswith(("raw/", "params")) and ".partial" not in path}


def _walk(run: Run, before: Callable[[str, list[Path | str]], None]) -> dict[str, float]:
    """Run every stage, calling `before` each; return how long each took."""
    took: dict[str, float] = {}
    for stage, calls in stage_commands(run).items():
        for arguments in calls:
            before(stage, arguments)
            took[stage] = _finish(stage, arguments)
    return took


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    CONTEXT.set_forkserver_preload([program.__module__ for program in PROGRAMS.values()])
    run = start_run(tmp_path, CHANGES)
    took = _walk(run, lambda *_: None)
    undisturbed = _outputs(run)
    for folder in ("data", "models", "metrics", "reports"):
        shutil.rmtree(tmp_path / folder)
    moments = random.Random(0)
    rounds = -(-KILLS // len(STAGES))

    def disturb(stage: str, arguments: list[Path | str]) -> None:
        whole = _outputs(run)
        for _ in range(rounds):
            _kill(stage, arguments, moments.random() * took[stage])
            now = _outputs(run)
            assert {path: now.get(path) for path in whole} == whole, f"a killed {stage} changed what others had made"

    _walk(run, disturb)
    assert _outputs(run) == undisturbed
