"""Run the default DAG as other processors would, and exit with 1 where one has other bytes than dvc.lock says."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from checks.processors.known import PROCESSORS, Processor
from checks.processors.leaves import answers_of, written
from checks.processors.patching import ANSWERS_SOURCE, patch_libraries
from pipeline.commands.doctor import recorded_stages
from pipeline.runtime.portable import PORTABLE, SETTINGS

PROJECT: Final = Path(__file__).resolve().parents[2]
HOME: Final = PROJECT / ".processors"
ENVIRONMENT: Final = HOME / "environment"
ANSWERS: Final = HOME / "answers.so"
LOG: Final = "repro.txt"


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(PROCESSORS)}; without any, all")] = None,
) -> None:
    """Run the last commit's default DAG as each processor, in a clone of its own, and compare what it wrote."""
    if unknown := sorted(set(names or ()) - set(PROCESSORS)):
        raise typer.BadParameter(f"there is no processor {unknown[0]}; there are {', '.join(PROCESSORS)}")
    _prepare()
    alike = [_runs_alike(name, PROCESSORS[name]) for name in names or PROCESSORS]
    raise typer.Exit(code=int(not all(alike)))


def _runs_alike(name: str, processor: Processor) -> bool:
    """Run the DAG as a processor, say what came of it, and tell whether it has the committed bytes."""
    began = time.monotonic()
    clone, environment = _clone(name, processor)
    (takes, own), (_, portable) = (_step(environment, portable=portable) for portable in (False, True))
    typer.echo(f"{name}, {processor.brand}: {takes}; a step {own}, in portable bytes {portable}")
    with (clone / LOG).open("wb") as log:
        command = ["python", "-m", "dvc", "repro"]
        if subprocess.run(command, cwd=clone, env=environment, stdout=log, stderr=log, check=False).returncode:
            typer.echo(f"  dvc repro failed, see {clone / LOG}")
            return False
    committed, here = _hashes(PROJECT / "dvc.lock"), _hashes(clone / "dvc.lock")
    others = sorted(path for path, md5 in committed.items() if here.get(path) != md5)
    minutes = (time.monotonic() - began) / 60
    typer.echo(
        f"  {len(committed) - len(others)} of {len(committed)} outputs have the committed bytes, {minutes:.0f} min"
    )
    for path in others:
        typer.echo(f"  other: {path}")
    return not others


def _prepare() -> None:
    """Write an environment that asks, and what answers it."""
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    shutil.copytree(PROJECT / ".venv", ENVIRONMENT, symlinks=True, copy_function=os.link)
    typer.echo(f"{patch_libraries(ENVIRONMENT / 'lib')} times CPUID, replaced in {ENVIRONMENT}")
    subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(ANSWERS), str(ANSWERS_SOURCE)], check=True)


def _clone(name: str, processor: Processor) -> tuple[Path, dict[str, str]]:
    """Clone the last commit; return the clone and what runs there as a processor."""
    clone, answers = HOME / name, HOME / f"{name}.txt"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True)
    answers.write_text(written(answers_of(processor)), encoding="utf-8")
    return clone, os.environ | {
        "LD_PRELOAD": str(ANSWERS),
        "PROCESSOR_ANSWERS": str(answers),
        PORTABLE: "1",
        "PYTHONPATH": str(clone),
        "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(clone / ".dvc" / "tmp" / "site"),
    }


def _step(environment: dict[str, str], *, portable: bool) -> list[str]:
    """Return what torch takes the processor for, and the hash of a training step."""
    settings = SETTINGS if portable else {PORTABLE: "0"}
    command = ["python", "-m", "checks.processors.step"]
    return subprocess.run(
        command, cwd=PROJECT, env=environment | settings, stdout=subprocess.PIPE, check=True, encoding="utf-8"
    ).stdout.split()


def _hashes(lock: Path) -> dict[str, str]:
    stages = (recorded_stages(lock) or {}).values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}


if __name__ == "__main__":
    typer.run(main)
