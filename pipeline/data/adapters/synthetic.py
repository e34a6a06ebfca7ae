"""The `synthetic` adapter: no raw data, images and masks are rendered from a seed and written as PNG files."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.data.adapters.listing import Listing
from pipeline.data.manifest import Split
from pipeline.params.types import SyntheticDomain
from pipeline.params.vocabulary import Laboratory, Tissue
from pipeline.runtime.console import progress
from pipeline.synthetic.tissues import render_image

# Every split counts from its own start, so that more training images leave the test images as they are.
_SPLIT_STRIDE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class _Job:
    tissue: Tissue
    laboratory: Laboratory
    class_idx: int
    classes: int
    size: int
    seed: int
    index: int
    image: Path
    mask: Path


def render_synthetic(domain: SyntheticDomain, *, folder: Path, workers: int) -> list[Listing]:
    """Render every image and mask of a domain to `folder/images` and `folder/masks` and list them.

    Classes alternate. Images of the background class have an empty mask. The files do not depend on `workers`, the
    number of processes; 1 renders in this one.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    jobs, listings = [], []
    for number, (split, count) in enumerate(_counts(domain)):
        for position in range(count):
            class_idx = position % len(domain.classes)
            listing = _listing(f"{split}_{position:04d}.png", label=domain.classes[class_idx], split=split)
            listings.append(listing)
            jobs.append(
                _Job(
                    tissue=domain.tissue,
                    laboratory=domain.laboratory,
                    class_idx=class_idx,
                    classes=len(domain.classes),
                    size=domain.image_size,
                    seed=domain.seed,
                    index=number * _SPLIT_STRIDE + position,
                    image=folder / listing.image,
                    mask=folder / listing.mask,
                )
            )
    _render_all(jobs, workers=workers)
    return listings


def _counts(domain: SyntheticDomain) -> Iterator[tuple[Split, int]]:
    yield Split.TRAIN, domain.images.train
    yield Split.VAL, domain.images.val
    yield Split.TEST, domain.images.test


def _listing(name: str, *, label: str, split: Split) -> Listing:
    return Listing(
        image=f"images/{name}",
        mask=f"masks/{name}",
        ignore_mask="",
        label=label,
        patient="",
        split=split,
        mask_selectable=split == Split.VAL,
        size=None,
    )


def _render_all(jobs: list[_Job], *, workers: int) -> None:
    if workers == 1:
        for job in progress(jobs, label="rendering"):
            _render(job)
        return
    # Spawned, not forked: the parent may hold threads.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in progress(pool.map(_render, jobs, chunksize=4), label="rendering", total=len(jobs)):
            pass


def _render(job: _Job) -> None:
    rendered = render_image(
        job.tissue,
        class_idx=job.class_idx,
        size=job.size,
        seed=job.seed,
        index=job.index,
        classes=job.classes,
        laboratory=job.laboratory,
    )
    Image.fromarray(rendered.image).save(job.image, format="PNG")
    Image.fromarray(rendered.mask).save(job.mask, format="PNG")  # bool: one bit per pixel
