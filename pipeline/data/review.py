"""What a person who looked at images set aside or corrected: a table, and what a prepared domain keeps of it.

A prepared domain records what it was reviewed by, so that a table that has changed since is noticed, as a raw file is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import pandas as pd

from pipeline.data.text_rows import raise_faults, read_rows
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError, shown
from pipeline.runtime.files import replacing_file

REQUIRED: Final = ("domain", "image", "verdict")
OPTIONAL: Final = ("label", "note")
COLUMNS: Final = (*REQUIRED, *OPTIONAL)  # in the order in which a table is written
RECORD: Final = "review.csv"  # in the folder of a prepared domain


class Verdict(StrEnum):
    """What is to become of an image: left out, or taken as of another class."""

    LEAVE_OUT = "leave_out"
    CORRECTED = "corrected"


@dataclass(frozen=True, kw_only=True)
class ReviewedImage:
    """A line of the table. `label` is the class that is right, empty of an image that is left out."""

    line: int
    image: str
    verdict: Verdict
    label: str


@dataclass(frozen=True)
class Review:
    """What a table says of one domain, by image; the same image stands in it once."""

    path: Path
    images: dict[str, ReviewedImage]

    @property
    def verdicts(self) -> frozenset[tuple[str, str, str]]:
        """Return what the domain's manifest depends on: image, verdict and label."""
        return frozenset((each.image, each.verdict.value, each.label) for each in self.images.values())


def read_review(name: str, params: Params) -> Review | None:
    """Read what is said of a domain in the table that its `review` names; None where it names none.

    Raises:
        PixelCAMError: the table is missing or no such table; or of this domain a verdict or class does not exist, or
            an image stands twice.
    """
    domain = params.domain(name)
    if domain.review is None:
        return None
    images: dict[str, ReviewedImage] = {}
    faults = []
    for line, values in read_rows(domain.review, required=REQUIRED, optional=OPTIONAL):
        if values["domain"] != name:
            if values["domain"] not in params.domains:
                known = ", ".join(sorted(params.domains))
                faults.append(
                    f"line {line}: there is no domain {shown(values['domain'])} (there are: {known}); mend it"
                )
            continue
        try:
            reviewed = _reviewed(line, values, classes=domain.classes)
        except PixelCAMError as error:
            faults.append(f"line {line}: {error}")
            continue
        first = images.setdefault(reviewed.image, reviewed)
        if first is not reviewed:
            faults.append(f"line {line}: {shown(reviewed.image)} stands in line {first.line} too; keep one of them")
    raise_faults(faults, source=domain.review)
    return Review(domain.review, images)


def _reviewed(line: int, values: dict[str, str], *, classes: Sequence[str]) -> ReviewedImage:
    known = ", ".join(Verdict)
    if values["verdict"] not in set(Verdict):
        raise PixelCAMError(f"expected a verdict out of {known}, got {shown(values['verdict'])}; mend it")
    verdict, label = Verdict(values["verdict"]), values.get("label", "")
    if verdict is Verdict.CORRECTED and label not in classes:
        raise PixelCAMError(
            f"{shown(values['image'])} is corrected: expected a label out of {', '.join(classes)}, got {shown(label)}; "
            "mend it"
        )
    if verdict is Verdict.LEAVE_OUT and label:
        raise PixelCAMError(
            f"{shown(values['image'])} is left out and has the label {shown(label)} all the same; remove the label, "
            f"or let the verdict be {Verdict.CORRECTED}"
        )
    return ReviewedImage(line=line, image=values["image"], verdict=verdict, label=label)


def record_review(review: Review | None, folder: Path) -> None:
    """Write what a domain was reviewed by into its folder, sorted by image; nothing where nothing was said of it."""
    if review is None or not review.images:
        return
    table = pd.DataFrame(sorted(review.verdicts), columns=["image", "verdict", "label"])
    with replacing_file(folder / RECORD) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def refuse_other_review(name: str, params: Params, folder: Path) -> None:
    """Refuse a prepared domain whose images were reviewed since, or by another table.

    Raises:
        PixelCAMError: says how to prepare it again; or the table or the record is damaged.
    """
    review, path = read_review(name, params), folder / RECORD
    applied = set()
    if path.exists():
        rows = read_rows(path, required=("image", "verdict", "label"), optional=())
        applied = {(values["image"], values["verdict"], values["label"]) for _, values in rows}
    if applied != (set() if review is None else review.verdicts):
        what = f"domains.{name}.review is null, but was not" if review is None else f"{review.path}: has changed"
        raise PixelCAMError(f"{what} when {folder} was prepared; run 'dvc repro -f prepare@{name}'")
