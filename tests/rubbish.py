"""A small good domain to spoil, and `prepare` as the program that people run on it."""

import io
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image
from tiny import change, params_values

from pipeline.runtime.console import run
from stages import prepare

SIZE = (24, 20)  # width and height
ROWS = ("a.png,benign,train", "b.png,malignant,train", "c.png,benign,val", "d.png,malignant,test")


def picture(seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return an image of random pixels, uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def region() -> npt.NDArray[np.uint8]:
    """Return a mask of 0 and 255, uint8 (H, W), with a region of 12x12 pixels."""
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
    mask[4:16, 6:18] = 255
    return mask


def write_good(folder: Path) -> Path:
    """Write the raw data of the domain `home` below a folder; return its root."""
    root = folder / "raw/home"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number, row in enumerate(ROWS):
        name = row.split(",")[0]
        Image.fromarray(picture(number)).save(root / "images" / name)
        Image.fromarray(region()).save(root / "masks" / name)
    lines = [f"images/{row},masks/{row.split(',')[0]}" for row in ROWS]
    (root / "table.csv").write_text("image,label,split,mask\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return root


def refusal(root: Path, changes: Mapping[str, object] | None = None) -> str:
    """Prepare a domain that must be refused: one message, exit code 1, no traceback, nothing written."""
    code, told = _prepare(root, changes)
    assert code == 1
    assert told.startswith("error: ") or "\nerror: " in told
    assert told.count("error: ") == 1
    assert "Traceback" not in told
    assert list((root.parent / "prepared").rglob("*")) == []
    return told


def acceptance(root: Path, changes: Mapping[str, object] | None = None) -> str:
    """Prepare a domain that must be accepted; return what was told."""
    code, told = _prepare(root, changes)
    assert code == 0, told
    assert "error: " not in told
    assert (root.parent / "prepared/home/manifest.csv").is_file()
    return told


def _prepare(root: Path, changes: Mapping[str, object] | None) -> tuple[object, str]:
    params = root.parent / "params.yaml"
    params.write_text(yaml.safe_dump(change(params_values(root.parent), changes or {})), encoding="utf-8")
    told = io.StringIO()
    arguments = ["prepare", "home", str(params), str(root.parent / "prepared/home")]
    with redirect_stderr(told), patch.object(sys, "argv", arguments):
        try:
            run(prepare.main)
        except SystemExit as end:
            return end.code, told.getvalue()
    raise AssertionError("the program did not end")
