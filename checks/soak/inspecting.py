"""What a run must not leave behind, and what its messages must be."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from checks.soak.warm import MARK
from pipeline.runtime.files import TEMPORARY

NOT_OURS: Final = {".git", ".dvc"}  # DVC's own temporary copies of the project are removed by DVC, or not
STATES: Final = ".checkpoints"
TRACES: Final = ("Traceback (most recent call last)", "Exception ignored in", "ERROR: unexpected error", "Segmentation")
OURS: Final = re.compile(r"^error: ((?:.+)(?:\n {2,}.+)*)", re.MULTILINE)
# What DVC says where it finds another at work, reads a file that the other is writing, or has no room.
LOCKED: Final = ("is busy, it is being blocked by", "Unable to acquire lock", "Failed to acquire lock", "rwlock")
TORN: Final = (
    "'NoneType' object is not subscriptable",
    "'./dvc.lock' validation failed",
    "is invalid",
    "Invalid `--set-param` value",  # of params that the other has exchanged
)
NO_ROOM: Final = (
    "No space left on device",
    "the index is locked",
    "ERROR: unexpected error",
    "File too large",
    "not enough",
    "Disk quota",
)


def partial_files(root: Path) -> list[str]:
    """Return what is written under a temporary name below a folder, DVC's and git's own aside."""
    return [name for name, is_temporary in _walk(root) if is_temporary]


def states(root: Path) -> list[str]:
    """Return the states of trainings that have not ended."""
    folder = root / STATES
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _walk(root: Path) -> Iterator[tuple[str, bool]]:
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        if here == root:
            folders[:] = [name for name in folders if name not in NOT_OURS]
        for name in sorted((*folders, *files)):
            yield (here / name).relative_to(root).as_posix(), TEMPORARY.match(name) is not None


def orphans(marks: Iterable[str], sessions: Iterable[int]) -> list[str]:
    """Return the processes that are still there of programs that have ended, by their sessions and what marks them."""
    marked, led = {f"{MARK}={mark}" for mark in marks}, set(sessions)
    found = []
    for process in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        try:
            environment = Path(f"/proc/{process}/environ").read_text(encoding="utf-8", errors="replace").split("\0")
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            if state != "Z" and (os.getsid(process) in led or marked.intersection(environment)):
                command = Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8", errors="replace")
                found.append(f"{process}: {command.replace(chr(0), ' ').strip()}")
        except OSError:
            continue  # it has ended, or is another user's
    return found


def traces(said: str) -> list[str]:
    """Return the lines at which a program shows its insides instead of a sentence, each with what follows."""
    lines = said.splitlines()
    return [
        " | ".join([line, *[last for last in lines[number + 1 : number + 60] if last[:1].strip()][:1]])
        for number, line in enumerate(lines)
        if any(trace in line for trace in TRACES)
    ]


def sentences(said: str) -> list[str]:
    """Return the errors of ours among what a program printed."""
    return [found.group(1) for found in OURS.finditer(said)]


def speaks_of(values: Mapping[str, Any]) -> set[str]:
    """Return the names of parameters of which an error has to name one, if it names no file."""
    found: set[str] = set()
    for key, value in values.items():
        found |= {key} | (speaks_of(value) if isinstance(value, Mapping) else set())
    return found


def names_its_cause(sentence: str, params: set[str]) -> bool:
    """Tell whether an error names a file, a parameter or a setting of the machine."""
    words = set(re.findall(r"[A-Za-z0-9_]+", sentence))
    return "/" in sentence or bool(words & params) or "PIXELCAM_" in sentence


def is_said_by_dvc(said: str, sayings: Iterable[str]) -> bool:
    """Tell whether DVC said one of some sentences."""
    return any(saying in said for saying in sayings)
