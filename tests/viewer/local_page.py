"""A run's local page as tests ask it: a site, and a client that has the token."""

from collections.abc import Sequence
from html import unescape
from pathlib import Path
from re import findall

import numpy as np
from PIL import Image
from starlette.testclient import TestClient
from tiny import Run, make_row, tiny_params

from pipeline.data.manifest import ManifestRow, Split, write_manifest
from pipeline.params.config import load_params
from pipeline.runtime.files import write_json
from pipeline.viewer.app import create_app
from pipeline.viewer.site import RunFiles, Site

PORT = 4321
TOKEN = "secret"
ORIGIN = f"http://127.0.0.1:{PORT}"


def run_files(root: Path, out: Path) -> RunFiles:
    """Return where the run below `root` lies; the page writes to the folder `out`."""
    run = Run(root)
    return RunFiles(
        prepared=run.prepared,
        models=run.models,
        metrics=run.per_image.parent,
        store=run.store,
        review=out / "review.csv",
        cache=out / "cache",
    )


def site_of(run: Run, out: Path) -> Site:
    """Return the site of a run; the page writes to the folder `out`."""
    return Site(load_params(run.params), run_files(run.root, out))


def write_prepared(root: Path, names: Sequence[str], **changes: str) -> Site:
    """Return the site of a run of which nothing is there but test images of the domain `home`, of these names."""
    folder = root / "raw/home"
    rows: list[ManifestRow] = []
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 8, 3), 200, dtype=np.uint8)).save(folder / name, format="PNG")
        rows.append(make_row(name, root=folder, split=Split.TEST, width=8, height=12, **changes))
    prepared = root / "data/prepared/home"
    prepared.mkdir(parents=True)
    write_manifest(rows, prepared / "manifest.csv")
    write_json(prepared / "classes.json", {"classes": ["benign", "malignant"], "background_class_idx": None})
    return Site(tiny_params(root / "raw"), run_files(root, root))


def client_of(site: Site) -> TestClient:
    """Return a client that has opened the printed address."""
    client = TestClient(create_app(site, port=PORT, token=TOKEN), base_url=ORIGIN, headers={"Origin": ORIGIN})
    assert client.get(f"/?token={TOKEN}").status_code == 200
    return client


def names_in(page: str) -> list[str]:
    """Return the images of a grid, from first to last."""
    return [unescape(name) for name in findall(r'class="cell[^>]*data-image="([^"]*)"', page)]
