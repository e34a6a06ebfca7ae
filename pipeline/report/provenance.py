"""Which code made an artifact: the files that a program runs, a hash over them, and the commit that last changed them.

Only these files count: a commit that touches others leaves what the program writes as it was, as it leaves DVC's cache.
"""

import ast
import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.runtime.files import sha256_of

UNKNOWN: Final = "unknown"
GIT_SECONDS: Final = 30
ELSEWHERE: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # would point git to another repository


def imported_files(program: Path, *, root: Path) -> tuple[Path, ...]:
    """Return the files below `root` that a program imports, directly or through others, itself among them, sorted.

    They are read from the sources, so that what happens to be imported already makes no difference.

    Args:
        program: a Python file below `root`.
        root: the folder that imports start from.
    """
    found: set[Path] = set()
    waiting = [program]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(file for module in _imports(current) for file in _files_of(module, root))
    return tuple(sorted(found))


def _imports(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    loaded = [node for node in tree.body if not _is_for_types(node)]
    for node in (inner for outer in loaded for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _files_of(module: str, root: Path) -> Iterator[Path]:
    """Yield the file of a module and those of the packages around it; nothing for what lies elsewhere."""
    parts = module.split(".")
    candidates = [root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    candidates.append(root.joinpath(*parts).with_suffix(".py"))
    yield from (file for file in candidates if file.is_file())


def hash_of_files(files: Iterable[Path], *, root: Path) -> str:
    """Return one SHA-256 over the names, seen from `root`, and the bytes of files."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(root).as_posix()} {sha256_of(file)}\n".encode())
    return whole.hexdigest()


def commit_of_files(files: Sequence[Path], *, root: Path) -> str:
    """Return the git commit that last changed any of some files, and whether they have been changed since.

    It is "unknown" where git or the repository is missing, where git does not know the files, and in a shallow clone
    that does not reach back that far.

    Args:
        files: files below `root`.
        root: a folder in a git repository.
    """
    names = [file.relative_to(root).as_posix() for file in files]
    found = _git(root, "log", "-1", "--format=%H %P", "--", *names)
    shallow = _git(root, "rev-parse", "--is-shallow-repository")
    status = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *names)
    if not found or shallow is None or status is None:
        return UNKNOWN
    commit, *parents = found.split()
    if shallow == "true" and not parents:  # where the history is cut off, every file looks new
        return UNKNOWN
    return f"{commit} (with local changes)" if status else commit


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git prints; None where it fails or is missing."""
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
