"""Is this machine ready? Each finding comes with its remedy."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.params.config import Params, load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.types import GENERATED
from pipeline.runtime.devices import describe_device, make_fabric

OLDEST_PYTHON = (3, 11)
RECORD = "dvc.lock"  # what ran with what, and what it gave
RWLOCK = ".dvc/tmp/rwlock"  # who reads and writes which output, by process; DVC's own
EXPERIMENT = "refs/exps/exec/EXEC_HEAD"  # what `dvc exp run` starts from, while it runs; it leaves the branch meanwhile
FREE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` is empty where all is well."""

    subject: str
    state: str
    remedy: str = ""


def examine(params: Path) -> Iterator[Finding]:
    """Yield findings about Python, torch and its device, DVC and its lock, git, disk, params and roots of domains."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("Python", version, "" if sys.version_info >= OLDEST_PYTHON else "install Python 3.11 or newer")
    yield Finding("torch", torch.__version__)
    yield _device()
    yield _dvc()
    root = next((folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / ".dvc").is_dir()), None)
    yield _dvc_lock(root)
    yield _dvc_record(root)
    yield _git()
    yield _disk()
    try:
        values = load_params(params)
    except PixelCAMError as error:
        yield Finding("params", "unfit", str(error))
        return
    yield Finding("params", f"{params} is valid")
    yield from _roots(values)


def _device() -> Finding:
    try:
        described = describe_device(make_fabric())
    except PixelCAMError as error:
        return Finding("device", "unfit", str(error))
    if torch.cuda.is_available():
        return Finding("device", described)
    if torch.version.cuda and shutil.which("nvidia-smi"):
        return Finding(
            "device", "a GPU that torch cannot use", "update the NVIDIA driver for CUDA " + torch.version.cuda
        )
    return Finding("device", f"{described}; fine for the embedded domains, slow for more")


def _dvc() -> Finding:
    version = importlib.metadata.version("dvc")
    python = shutil.which("python")
    if python is None or Path(python).parent != Path(sys.executable).parent:
        state = f"{version}, but its stages would run with {python}"
        return Finding("DVC", state, "activate the environment: . .venv/bin/activate")
    return Finding("DVC", version)


def _dvc_lock(root: Path | None) -> Finding:
    """Say who holds a DVC project: nobody, a run under way, or a lock that DVC will not free."""
    if root is None or not (root / RWLOCK).exists():
        return Finding("DVC lock", "free")
    lock = root / RWLOCK
    remedy = f"rm {lock}, once no dvc runs here any more"
    try:
        held = json.loads(lock.read_text(encoding="utf-8"))
        readers = [reader for readers in held.get("read", {}).values() for reader in readers]
        holders = {int(holder["pid"]) for holder in (*held.get("write", {}).values(), *readers)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Finding("DVC lock", f"{lock} is damaged: a dvc was killed while it wrote it", remedy)
    alive = sorted(process for process in holders if _command(process) is not None)
    others = [process for process in alive if "dvc" not in (_command(process) or "")]
    if others:
        return Finding("DVC lock", f"held by process {others[0]}, which is no dvc: that one was killed", remedy)
    if alive:
        return Finding("DVC lock", f"held by process {alive[0]}, a dvc that runs")
    return Finding("DVC lock", "free" if not holders else "left by a dvc that was killed; the next one frees it")


def _dvc_record(root: Path | None) -> Finding:
    """Say whether a project's dvc.lock is whole: DVC writes it in place, and runs no stage where it is not."""
    record = root / RECORD if root else Path(RECORD)
    if not record.exists():
        return Finding(RECORD, "not there yet")
    stages = recorded_stages(record)
    if stages is None:
        state = "damaged: a dvc was killed, or out of room, while it wrote it"
        return Finding(RECORD, state, f"git checkout {record}; DVC's cache knows what has run since")
    return Finding(RECORD, f"whole, {len(stages)} stages")


def recorded_stages(record: Path) -> dict[str, Any] | None:
    """Return the stages in a dvc.lock; None if it is damaged."""
    try:
        content = YAML(typ="safe").load(record.read_bytes())
    except (OSError, YAMLError, ValueError):
        return None
    stages = content.get("stages") if isinstance(content, dict) and "schema" in content else None
    return stages if isinstance(stages, dict) else None


def _command(process: int) -> str | None:
    """Return what a process runs, None if it has ended; "dvc" where the system does not tell."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # it is another user's
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "dvc"


def _git() -> Finding:
    if shutil.which("git") is None:
        return Finding("git", "not found", "install git; DVC needs it for experiments")
    if _git_says("rev-parse", "HEAD") is None:
        return Finding("git", "no repository with a commit here", "git init && git add . && git commit, or clone")
    if _git_says("config", "user.email") is None:
        return Finding("git", "no user", "git config user.name NAME && git config user.email EMAIL, for dvc exp run")
    return _left_by_experiment() or Finding("git", "repository with a user")


def _left_by_experiment() -> Finding | None:
    """Say what an experiment that was killed, or had no room, has left in git; None if nothing."""
    once = "once no dvc or git runs here any more"
    index_lock = Path(_git_says("rev-parse", "--git-path", "index.lock") or "")
    if index_lock.is_file():
        state = "its index is locked: git or dvc runs, or one was killed or out of room"
        return Finding("git", state, f"rm {index_lock}, {once}; what dvc had set aside is in git stash list")
    if _git_says("rev-parse", "--verify", "--quiet", EXPERIMENT) is None:
        return None
    if _git_says("symbolic-ref", "--quiet", "HEAD") is None:
        return Finding("git", "on no branch: an experiment runs, or was killed", f"git switch - && git reset, {once}")
    if _git_says("diff", "--cached", "--name-only"):
        return Finding("git", "an experiment that runs, or was killed, staged changes", f"git reset, {once}")
    return None


def _git_says(*arguments: str) -> str | None:
    answer = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 and answer.stdout.strip() else None


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    state = f"{free / 1024**3:.0f} GiB free"
    return Finding("disk", state, "" if free >= FREE_BYTES else "free at least 2 GiB for models and DVC's cache")


def _roots(params: Params) -> Iterator[Finding]:
    for name, domain in params.domains.items():
        if isinstance(domain, GENERATED):
            continue
        in_use = name in params.target_domains
        if domain.root.is_dir():
            yield Finding(f"domain {name}", f"{domain.root} is there")
        elif in_use:
            yield Finding(f"domain {name}", f"{domain.root} is missing", f"set domains.{name}.root in the params file")
        else:
            yield Finding(f"domain {name}", f"{domain.root} is not there, and not in use")
