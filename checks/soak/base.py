"""Where a soak runs: a clone of the project as it stands, tiny params, and raw data."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import TypeAdapter

from pipeline.commands.doctor import recorded_stages
from pipeline.data.preparation import prepare_domain
from pipeline.params.types import AnyDomain

PROJECT: Final = Path(__file__).parents[2]
SLIDES: Final[dict[str, Any]] = {
    "adapter": "synthetic_slides",
    "classes": ["normal", "metastatic"],
    "background_class": "normal",
    "review": None,
    "slides": {"train": 2, "val": 2, "test": 2},
    "slide_size": 1024,
    "mpp": 1.0,
    "tile_size": 64,
    "tiles_per_slide": 6,
    "tissue_share": 0.5,
    "lesion_share": 0.3,
    "doubt_share": 0.0,
    "annotation_groups": {"_0": "lesion", "_2": "hole"},
    "seed": 0,
}
TABLE: Final[dict[str, Any]] = {
    "adapter": "table",
    "table": "table.csv",
    "classes": ["benign", "malignant"],
    "background_class": None,
    "review": None,
    "val_fraction": 0.0,
    "test_fraction": 1.0,
    "adapt_fraction": 0.0,
    "seed": 0,
    "shared_patients": "reject",
}
TRAINING: Final = {"steps": 4, "batch_size": 2}
SMALL: Final[dict[str, Any]] = {
    "encoder": {"name": "test_efficientnet", "weights": "random"},
    "model": {"input_size": 64},
    "train_teacher": TRAINING,
    "train_pixelcam": TRAINING | {"pixel_loss_weight": 1.0},
    "pixelcam_map": {"symmetries": 2},
    "adaptation": {"lymph_node": TRAINING},
    "slides": {"tissue": {"smallest_speck": 0.001, "largest_hole": 0.001}},
    "evaluate_ood": {"map_size": 64, "resamples": 100},
    "report": {"images_per_domain": 1},
}
RENDERED: Final = ("colon", "lymph_node", "colon_b")
TINY_DOMAIN: Final = {"images": {"train": 4, "val": 2, "test": 2}, "image_size": 64}


def tiny_params(shipped: Mapping[str, Any], *, raw: Path) -> dict[str, Any]:
    """Return params.yaml as shipped with everything small, and besides a table domain below `raw`, and slides."""
    domains = {name: merged(shipped["domains"][name], TINY_DOMAIN) for name in RENDERED}
    others = {"table": TABLE | {"root": str(raw / "table")}, "slides": SLIDES}
    return merged(shipped, SMALL) | {"domains": domains | others}


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with some of them changed, at any depth."""
    inner = {
        key: merged(values[key], change) if isinstance(change, Mapping) else change for key, change in changes.items()
    }
    return {**values, **inner}


def read_shipped(path: Path = PROJECT / "params.yaml") -> dict[str, Any]:
    """Return the project's own params."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def write_params(path: Path, values: Mapping[str, Any]) -> None:
    """Write a params file."""
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")


def write_raw(raw: Path) -> None:
    """Write the images of the table domain, which are rendered, and its table."""
    values = read_shipped()["domains"]["colon_b"] | TINY_DOMAIN | {"seed": 7}
    folder = raw / "table"
    rows = prepare_domain(TypeAdapter[Any](AnyDomain).validate_python(values), output=folder).rows
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "mask", "split"])
        table.writerows([row.image, row.label, row.mask, row.split.value] for row in rows)


def make_clone(root: Path, params: Mapping[str, Any]) -> None:
    """Write the project as it stands, with what is not committed, as a git repository with tiny params."""
    root.mkdir(parents=True, exist_ok=True)
    listed = run_git(PROJECT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in (Path(name) for name in listed if name):
        if name.name != "dvc.lock" and (PROJECT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, root / name)
    write_params(root / "params.yaml", params)
    run_git(root, "init", "--quiet")
    run_git(root, "config", "user.name", "soak")
    run_git(root, "config", "user.email", "soak@localhost")
    commit(root, "the project")


def commit(root: Path, message: str) -> None:
    """Commit all that git may hold."""
    run_git(root, "add", ".")
    run_git(root, "commit", "--quiet", "--message", message)


def mend(root: Path) -> list[str]:
    """Do what `pixelcam doctor` advises of what DVC leaves that was killed or had no room, and say what that was."""
    mended = []
    index_lock = root / ".git/index.lock"
    if index_lock.exists():
        mended.append("git's index locked")
        index_lock.unlink()
    if not _is_on_branch(root):
        mended.append("git on no branch")
        run_git(root, "switch", "--quiet", "-")
    if run_git(root, "diff", "--cached", "--name-only"):
        mended.append("changes staged")
        run_git(root, "reset", "--quiet")
    rwlock = root / ".dvc/tmp/rwlock"
    if rwlock.exists() and not _is_json(rwlock):
        mended.append("DVC's lock half-written")
        rwlock.unlink()
    record = root / "dvc.lock"
    if record.exists() and recorded_stages(record) is None:
        mended.append("dvc.lock half-written")
        run_git(root, "checkout", "--quiet", "dvc.lock")
    return mended


def _is_on_branch(root: Path) -> bool:
    command = ["git", "symbolic-ref", "--quiet", "HEAD"]
    return subprocess.run(command, cwd=root, check=False, stdout=subprocess.DEVNULL).returncode == 0


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def run_git(root: Path, *arguments: str) -> str:
    """Run git in a repository and return what it prints."""
    return subprocess.run(["git", *arguments], cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout


def environment_of(root: Path) -> dict[str, str]:
    """Return the environment of programs in a clone: this Python first, the clone's code, one thread each."""
    here = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": os.pathsep.join((here, os.environ["PATH"])),
        "PYTHONPATH": str(root),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(root / ".dvc/tmp/site"),
        "HF_HUB_OFFLINE": "1",
        "SHELL": "/bin/sh",
    }
