"""Two small slides as a run has them: prepared, one of them mapped by both models and once more by `pixelcam slide`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from local_page import run_files
from PIL import Image
from slide_files import Picture, glass, square, stained, write_asap, write_slide
from tiny import Run, tiny_params

from pipeline.data.preparation import prepare_domain
from pipeline.data.slides import read_slides
from pipeline.evaluation.slide_maps import DESCRIPTION, HEAT, REGIONS, THUMBNAIL
from pipeline.slides.geojson import write_geojson
from pipeline.slides.heat import NOT_LOOKED_AT, Heat
from pipeline.slides.pyramids import write_ome_zarr
from pipeline.slides.regions import Region
from pipeline.viewer.site import Site

SIZE = (1152, 1024)  # width and height
STRIDE = 8.0
LESION = square(256, 256, 320)
FOUND = square(264, 240, 336)
DOMAIN: dict[str, Any] = {
    "adapter": "slides",
    "table": "slides.csv",
    "classes": ["normal", "tumour"],
    "background_class": "normal",
    "review": None,
    "val_fraction": 0.0,
    "test_fraction": 1.0,
    "adapt_fraction": 0.0,
    "shared_patients": "reject",
    "mpp": 1.0,
    "tile_size": 64,
    "tiles_per_slide": 4,
    "tissue_share": 0.5,
    "lesion_share": 0.5,
    "doubt_share": 0.0,
    "annotation_groups": {"_0": "lesion"},
    "seed": 0,
}


def picture() -> Picture:
    """Return what the slide `a` shows, uint8 (1024, 1152, 3)."""
    return stained(glass(SIZE[1], SIZE[0]), 128, 128, 768, 896)


def heat() -> Heat:
    """Return a map: tissue with probability 0 but for the region that is found, with 1; nothing elsewhere."""
    values = np.full((SIZE[1] // 8, SIZE[0] // 8), NOT_LOOKED_AT, dtype=np.uint8)
    values[16:112, 16:128] = 0
    values[30:72, 33:75] = 254
    return Heat(values, STRIDE, 0.5)


def write_run(root: Path, patch: pytest.MonkeyPatch) -> Site:
    """Write the run below `root`: the slide `a` with a lesion and maps, and `b` without either."""
    patch.setenv("PIXELCAM_IMAGES", str(root / "images"))
    patch.setattr("pipeline.runtime.cluster.os.cpu_count", lambda: 1)
    raw = root / "raw/home"
    write_slide(raw / "a.tif", picture())
    write_slide(raw / "b.tif", stained(glass(SIZE[1], SIZE[0]), 128, 128, 768, 896, seed=1))
    write_asap(raw / "a.xml", {"_0": [LESION]})
    (raw / "slides.csv").write_text("slide,label,annotation,split\na.tif,tumour,a.xml,test\nb.tif,normal,,test\n")
    changes = {"domains.home": DOMAIN | {"root": str(raw)}, "target_domains": ["home"]}
    params = tiny_params(root / "raw", changes)
    files = replace(run_files(root, root), slide_maps=root / "slides", slide_files=raw)
    prepare_domain(params.domain("home"), output=Run(root).prepared / "home", tissue=params.slides.tissue)
    sha256 = read_slides(Run(root).prepared / "home")[0].slide_sha256
    for model in ("teacher", "pixelcam"):
        write_map(files.metrics / "slides/home" / model / "a", model=model, sha256=sha256)
    shutil.copytree(files.metrics / "slides/home/pixelcam/a", root / "slides/a")
    return Site(params, files)


def write_map(folder: Path, *, model: str, sha256: str, slide: str = "a.tif") -> None:
    """Write the folder of a slide's map, as far as a page reads it."""
    folder.mkdir(parents=True)
    region = Region(
        polygon=shapely.Polygon(FOUND), area_mm2=0.028, mean=1.0, maximum=1.0, peak=(268, 244), diameter_mm=0.2
    )
    write_ome_zarr(folder / HEAT, heat(), name="a", attributes={})
    write_geojson(folder / REGIONS, [region], name="tumour", colour=(213, 94, 0))
    Image.new("RGB", (288, 256), (1, 2, 3)).save(folder / THUMBNAIL)
    about = {
        "slide": slide,
        "slide_sha256": sha256,
        "width": SIZE[0],
        "height": SIZE[1],
        "mpp": 0.5,
        "threshold": 0.375,
        "scores": {"maximum": 1.0, "share_of_tissue": 0.164, "regions": 1, "largest_region_mm": 0.2},
        "model": {"map_of": model if model == "pixelcam" else "teacher, for the predicted class"},
    }
    (folder / DESCRIPTION).write_text(json.dumps(about), encoding="utf-8")
