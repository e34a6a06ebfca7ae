"""The adapters `slides` and `synthetic_slides`: a table of whole slides, or slides that are rendered with one."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.data.adapters.listing import Listing, move_to_train, split_by_patient
from pipeline.data.adapters.table import split_named
from pipeline.data.manifest import Split, is_writable, relative_path
from pipeline.data.text_rows import raise_faults, read_rows
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.types import SlidesDomain, SyntheticSlidesDomain
from pipeline.runtime.cluster import side_by_side
from pipeline.runtime.files import replacing_file
from pipeline.synthetic.slides import render_slide

REQUIRED: Final = ("slide", "label")
OPTIONAL: Final = ("annotation", "patient", "split", "mpp")
TABLE: Final = "slides.csv"


@dataclass(frozen=True, kw_only=True)
class ListedSlide:
    """One slide as its dataset describes it, nothing opened yet. Empty text stands for what is not known.

    `slide` and `annotation` are POSIX paths relative to the domain's root. `mpp` is None where the file says it.
    """

    slide: str
    label: str
    annotation: str
    patient: str
    split: Split
    mpp: float | None


def list_slides(domain: SlidesDomain) -> list[ListedSlide]:
    """List the rows of `domain.table` (relative to the root, or absolute), each with a split: its own, or by patient.

    A share of those to be scored is moved to train, see `move_to_train`.

    Columns: slide and label; optional annotation, patient, split (train, val or test) and mpp; others are ignored, and
    told.

    Raises:
        PixelCAMError: the table cannot be read, lacks a column, or rows hold no label, an unknown split, a bad path,
            an mpp that is no length, or a slide twice; or all slides to be scored are of one patient, of whom
            `adapt_fraction` wants a share.
    """
    path = domain.root / domain.table
    faults: list[str] = []
    found: list[tuple[Listing, float | None]] = []
    for number, values in read_rows(path, required=REQUIRED, optional=OPTIONAL):
        try:
            found.append((_listing(values), _mpp(values.get("mpp", ""))))
        except PixelCAMError as error:
            faults.append(f"line {number}: {error}")
    faults += _repeated([listing.image for listing, _ in found])
    raise_faults(faults, source=path)
    listings = [listing for listing, _ in found]
    if any(listing.split is None for listing in listings):
        fractions = {"val_fraction": domain.val_fraction, "test_fraction": domain.test_fraction}
        listings = split_by_patient(listings, **fractions, seed=domain.seed)
    listings = move_to_train(listings, adapt_fraction=domain.adapt_fraction, seed=domain.seed)
    return [
        ListedSlide(
            slide=listing.image,
            label=listing.label,
            annotation=listing.mask,
            patient=listing.patient,
            split=listing.split,
            mpp=mpp,
        )
        for listing, (_, mpp) in zip(listings, found, strict=True)
        if listing.split is not None
    ]


def _listing(values: dict[str, str]) -> Listing:
    for column in ("label", "patient"):
        if not is_writable(values.get(column, "")):
            raise PixelCAMError(f"{column} holds control characters, {shown(values[column])}; type it again")
    if not values["label"]:
        raise PixelCAMError(f"{shown(values['slide'])}: has no label; fill it in or remove the row")
    annotation = values.get("annotation", "")
    return Listing(
        image=relative_path(values["slide"]),
        mask=relative_path(annotation) if annotation else "",
        ignore_mask="",
        label=values["label"],
        patient=values.get("patient", ""),
        split=split_named(values["split"], image=values["slide"]) if "split" in values else None,
        mask_selectable=False,
        size=None,
    )


def _mpp(text: str) -> float | None:
    if not text:
        return None
    try:
        mpp = float(text)
    except ValueError:
        mpp = 0.0
    if not 0.01 <= mpp <= 100:
        raise PixelCAMError(f"mpp must be micrometres per pixel of the slide, such as 0.25, got {shown(text)}")
    return mpp


def _repeated(slides: list[str]) -> Iterator[str]:
    """Yield a fault for slides that are listed twice, and for those whose tiles would have the same names."""
    seen: dict[str, str] = {}
    for slide in slides:
        name = name_of(slide)
        if name in seen:
            yield f"{slide}: would have the same name as {seen[name]}; list each slide once, and give files other names"
        seen[name] = slide


def name_of(slide: str) -> str:
    """Return the name of a slide, by which its tiles and its folder are called: its path without the ending."""
    return str(Path(slide).with_suffix(""))


@dataclass(frozen=True, kw_only=True)
class _Job:
    slide: Path
    annotation: Path | None
    size: int
    seed: int
    index: int


def render_slides(domain: SyntheticSlidesDomain, *, folder: Path, scheduler: str | None) -> list[ListedSlide]:
    """Render the slides of a domain to `folder/slides`, with annotations, and list them; classes alternate.

    Every split begins with a metastatic slide; normal slides have no annotation.
    """
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    listed: list[ListedSlide] = []
    jobs: list[_Job] = []
    counts = {Split.TRAIN: domain.slides.train, Split.VAL: domain.slides.val, Split.TEST: domain.slides.test}
    for number, (split, count) in enumerate(counts.items()):
        for position in range(count):
            class_idx = 1 - position % 2
            name = f"slides/{split}_{position:03d}"
            annotation = f"{name}.xml" if class_idx == 1 else ""
            listed.append(
                ListedSlide(
                    slide=f"{name}.tif",
                    label=domain.classes[class_idx],
                    annotation=annotation,
                    patient=f"{split}_{position:03d}",
                    split=split,
                    mpp=None,
                )
            )
            jobs.append(
                _Job(
                    slide=folder / f"{name}.tif",
                    annotation=folder / annotation if annotation else None,
                    size=domain.slide_size,
                    seed=domain.seed,
                    index=1000 * number + position,
                )
            )
    for _ in side_by_side(_render, jobs, label="rendering slides", scheduler=scheduler):
        pass
    _write_table(listed, folder / "slides" / TABLE)
    return listed


def _render(job: _Job) -> None:
    render_slide(
        job.slide,
        job.annotation,
        size=job.size,
        metastatic=job.annotation is not None,
        seed=job.seed,
        index=job.index,
    )


def _write_table(listed: list[ListedSlide], path: Path) -> None:
    """Write the table that the adapter `slides` takes, so that what was rendered serves as an example of it."""
    with replacing_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*REQUIRED, *OPTIONAL[:3]])
        writer.writerows([each.slide, each.label, each.annotation, each.patient, each.split.value] for each in listed)
