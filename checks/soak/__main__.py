"""Run a soak, print what came of it, and exit with 1 where a fault was found."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from checks.soak import base
from checks.soak.disturbing import mount_disk, unmount_disk
from checks.soak.summary import summarize
from checks.soak.worker import CLONE, DISK, RESULTS

LOG: Final = "worker.txt"


def main(
    runs: Annotated[int, typer.Option(help="how many")] = 200,
    seed: Annotated[int, typer.Option(help="of all that is drawn")] = 0,
    workers: Annotated[int, typer.Option(help="processes that share the runs, each with clones of its own")] = 2,
    folder: Annotated[
        Path | None, typer.Option(help="where to work; else a temporary one, removed if all is well")
    ] = None,
    only: Annotated[list[int] | None, typer.Option(help="repeat runs by their numbers")] = None,
) -> None:
    """Run the pipeline with random params on tiny domains, disturb it, and look at what is left."""
    began = time.monotonic()
    home = (folder or Path(tempfile.mkdtemp(prefix="pixelcam-soak-"))).resolve()
    numbers = only or list(range(runs))
    shares = [share for share in (numbers[worker::workers] for worker in range(workers)) if share]
    places = [home / f"worker-{worker}" for worker in range(len(shares))]
    typer.echo(f"{len(numbers)} runs of seed {seed} in {home}")
    try:
        _prepare(home, places)
        started = [_start(place, seed, share, home / "raw") for place, share in zip(places, shares, strict=True)]
        _await(started, places)
        lines = [line for place in places for line in _lines(place)]
    finally:
        for place in places:
            unmount_disk(place / DISK)
    typer.echo(summarize(lines, seconds=time.monotonic() - began))
    broken = [str(place / LOG) for place, process in zip(places, started, strict=True) if process.returncode]
    for log in broken:
        typer.echo(f"a worker failed, see {log}")
    if broken or any(line.get("faults") or line.get("end_faults") for line in lines):
        typer.echo(f"what was printed is in {home}")
        raise typer.Exit(code=1)
    if folder is None:
        shutil.rmtree(home)


def _prepare(home: Path, places: list[Path]) -> None:
    """Write raw data and every worker's clones."""
    base.write_raw(home / "raw")
    params = base.tiny_params(base.read_shipped(), raw=home / "raw")
    for place in places:
        if not mount_disk(place / DISK):
            typer.echo("no file system can be mounted here: in the place of full disks, files are limited in size")
        base.make_clone(place / CLONE, params)
        shutil.copy(base.PROJECT / "params.yaml", place / "shipped.yaml")


def _start(place: Path, seed: int, numbers: list[int], raw: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "checks.soak.worker", str(place), str(seed), json.dumps(numbers), str(raw)]
    root = place / CLONE
    with (place / LOG).open("wb") as log:
        return subprocess.Popen(command, cwd=root, env=base.environment_of(root), stdout=log, stderr=log)


def _await(started: list["subprocess.Popen[bytes]"], places: list[Path]) -> None:
    """Wait for the workers and print every fault when it is found."""
    told: set[int] = set()
    while True:
        ended = all(process.poll() is not None for process in started)
        for line in [line for place in places for line in _lines(place) if line.get("number", -1) not in {-1, *told}]:
            told.add(line["number"])
            typer.echo(
                f"{line['number']}: {line['how']}, {line['disturbance']}: {line['end']} ({line['seconds']:.0f} s)"
            )
            for fault in line["faults"]:
                typer.echo(f"  fault: {fault}")
        if ended:
            return
        time.sleep(1)


def _lines(place: Path) -> list[dict[str, Any]]:
    results = place / RESULTS
    text = results.read_text(encoding="utf-8") if results.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


if __name__ == "__main__":
    typer.run(main)
