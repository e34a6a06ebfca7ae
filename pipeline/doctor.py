"""Is this machine ready? Each finding comes with its remedy."""

import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.config import Params, SyntheticDomain, load_params
from pipeline.devices import describe_device, make_fabric
from pipeline.errors import PixelCAMError

OLDEST_PYTHON = (3, 11)
FREE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `remedy` is empty where all is well."""

    subject: str
    state: str
    remedy: str = ""


def examine(params: Path) -> Iterator[Finding]:
    """Yield findings about Python, torch and its device, DVC, git, disk, the params and the roots of their domains."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("Python", version, "" if sys.version_info >= OLDEST_PYTHON else "install Python 3.11 or newer")
    yield Finding("torch", torch.__version__)
    yield _device()
    yield _dvc()
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
    if torch.cuda.is_available():
        return Finding("device", describe_device(make_fabric()))
    if torch.version.cuda and shutil.which("nvidia-smi"):
        return Finding(
            "device", "a GPU that torch cannot use", "update the NVIDIA driver for CUDA " + torch.version.cuda
        )
    return Finding("device", f"CPU, threads: {torch.get_num_threads()}; fine for the embedded domains, slow for more")


def _dvc() -> Finding:
    version = importlib.metadata.version("dvc")
    python = shutil.which("python")
    if python is None or Path(python).parent != Path(sys.executable).parent:
        state = f"{version}, but its stages would run with {python}"
        return Finding("DVC", state, "activate the environment: . .venv/bin/activate")
    return Finding("DVC", version)


def _git() -> Finding:
    if shutil.which("git") is None:
        return Finding("git", "not found", "install git; DVC needs it for experiments")
    if _git_says("rev-parse", "HEAD") is None:
        return Finding("git", "no repository with a commit here", "git init && git add . && git commit, or clone")
    if _git_says("config", "user.email") is None:
        return Finding("git", "no user", "git config user.name NAME && git config user.email EMAIL, for dvc exp run")
    return Finding("git", "repository with a user")


def _git_says(*arguments: str) -> str | None:
    answer = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 and answer.stdout.strip() else None


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    state = f"{free / 1024**3:.0f} GiB free"
    return Finding("disk", state, "" if free >= FREE_BYTES else "free at least 2 GiB for models and DVC's cache")


def _roots(params: Params) -> Iterator[Finding]:
    for name, domain in params.domains.items():
        if isinstance(domain, SyntheticDomain):
            continue
        in_use = name in params.target_domains
        if domain.root.is_dir():
            yield Finding(f"domain {name}", f"{domain.root} is there")
        elif in_use:
            yield Finding(f"domain {name}", f"{domain.root} is missing", f"set domains.{name}.root in the params file")
        else:
            yield Finding(f"domain {name}", f"{domain.root} is not there, and not in use")
