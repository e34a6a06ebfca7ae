"""A domain of BMP files of GlaS's size with pseudo-labels: GlaS itself where its folder is given, else generated."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.networks import some_images
from pipeline.data.manifest import Manifest, ManifestRow, Split
from pipeline.runtime.files import sha256_of

WIDTH, HEIGHT = 775, 522  # most images of GlaS


def glas_like(scratch: Path, glas: Path | None, *, count: int) -> Manifest:
    """Return up to `count` images as training images: those of GlaS, or as many generated ones."""
    if glas is not None:
        paths = sorted(path for path in glas.glob("*.bmp") if "_anno" not in path.name)[:count]
        return Manifest(tuple(_row(path, number) for number, path in enumerate(paths)), glas)
    folder = scratch / "tissue"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        image = some_images(1, WIDTH)[0, :, :HEIGHT].permute(1, 2, 0).numpy() * 200
        noisy = (image + generator.normal(25, 12, image.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"train_{number}.bmp")
    paths = [folder / f"train_{number}.bmp" for number in range(count)]
    return Manifest(tuple(_row(path, number) for number, path in enumerate(paths)), folder)


def _row(path: Path, number: int) -> ManifestRow:
    with Image.open(path) as image:
        width, height = image.size
    return ManifestRow(
        image=path.name,
        mask="",
        ignore_mask="",
        label=str(number % 2),
        class_idx=number % 2,
        split=Split.TRAIN,
        patient="",
        width=width,
        height=height,
        image_sha256=sha256_of(path),
        mask_sha256="",
        mask_selectable=False,
    )
