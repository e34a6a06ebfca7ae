"""What happens to a run: a signal, a disk without room, another run beside it."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from checks.soak.draws import Draw, Victim
from checks.soak.warm import Started

BEGUN: Final = re.compile(r"^Running stage ", re.MULTILINE)
DISK: Final = "6G"
SPARE: Final = 2 << 20  # bytes: a file system keeps some for its own lists


def await_moment(draw: Draw, run: Started, *, longest: float) -> bool:
    """Wait until so many stages have begun, and then some; tell whether the run is still there."""
    until = time.monotonic() + longest
    while draw.stages and len(BEGUN.findall(run.said())) < draw.stages:
        if run.poll() or time.monotonic() > until:
            return False
        time.sleep(0.01)
    return not run.wait(draw.seconds)


def send_signal(draw: Draw, run: Started) -> str:
    """Send the signal to whom it is for, and say so; to `dvc` where no stage runs."""
    number = signal.Signals[draw.signal]
    stage = _child_of(run.process) if draw.victim is Victim.STAGE else None
    with suppress(ProcessLookupError):
        if draw.victim is Victim.GROUP:
            os.killpg(run.process, number)
        else:
            os.kill(stage or run.process, number)
    return f"{draw.signal} to {'dvc' if draw.victim is Victim.STAGE and stage is None else draw.victim}"


def _child_of(process: int) -> int | None:
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int((entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == process:
                return int(entry.name)
    return None


@contextmanager
def full_disk(root: Path, room: int) -> Iterator[None]:
    """Leave so little room on the file system of a folder, which has to be one of its own."""
    ballast = root.parent / "ballast"
    free = os.statvfs(root)
    size = free.f_bavail * free.f_frsize - room - SPARE
    try:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
            with suppress(OSError):  # the rest, which no single block fits
                while os.statvfs(root).f_bavail * free.f_frsize > room:
                    file.seek(0, os.SEEK_END)
                    file.write(bytes(free.f_frsize))
                    file.flush()
        yield
    finally:
        ballast.unlink(missing_ok=True)


def mount_disk(folder: Path) -> bool:
    """Mount a file system of its own at a folder, where this machine lets us; tell whether it did."""
    image = folder.with_name(f"{folder.name}.img")
    folder.mkdir(parents=True, exist_ok=True)
    commands = (
        ["truncate", "--size", DISK, str(image)],
        ["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", str(image)],
        ["mount", "-o", "loop", str(image), str(folder)],
    )
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        image.unlink(missing_ok=True)
        return False
    return True


def unmount_disk(folder: Path) -> None:
    """Take such a file system away again, and what was on it."""
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=False)
    folder.with_name(f"{folder.name}.img").unlink(missing_ok=True)
