"""What there is to browse: images of the store and images that were scored, with what is known of each; no pixels."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.data.manifest import CLASSES, ManifestRow, PreparedDomain, Split, read_domain
from pipeline.metrics.scores import ModelName
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import FOREGROUND
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.viewer.site import RunFiles

PER_IMAGE: Final = "per_image.csv"
NEEDED: Final = ("domain", "model", "image", "predicted_class", "confidence", "dice")
DISAGREEMENT: Final = "disagreement"
FOREGROUND_SHARE: Final = "foreground_share"
RIGHT, WRONG = "right", "wrong"
_NUMBER: Final = re.compile(r"(\d+)")

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Collection:
    """Images of one domain that are browsed together.

    Attributes:
        key: what addresses call it.
        title: what a person calls it.
        domain: theirs; its manifest holds images that are not among them too.
        rows: what the manifest says of each.
        numbers: by name, a value for each image, NaN where there is none: `teacher_dice`, `pixelcam_dice`,
            `teacher_confidence`, `pixelcam_confidence`, `disagreement`, or of the store `foreground_share`.
        predicted: by model, the predicted class of each image, empty where it was not scored.
        store: the pseudo-labels, of the collection that they are of.
        remarks: what a person should know of it.
    """

    key: str
    title: str
    domain: PreparedDomain
    rows: tuple[ManifestRow, ...]
    numbers: Mapping[str, Floats] = field(default_factory=dict)
    predicted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    store: PseudoLabelStore | None = None
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def position(self) -> dict[str, int]:
        """Where each image stands among the rows, by its id."""
        return {row.image: place for place, row in enumerate(self.rows)}

    @cached_property
    def class_idx(self) -> NDArray[np.int64]:
        """The class of each image."""
        return np.array([row.class_idx for row in self.rows], dtype=np.int64)

    @cached_property
    def by_name(self) -> NDArray[np.int64]:
        """The images by name, in which 10 comes after 9."""
        keys = [_natural(row.image) for row in self.rows]
        return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)

    @cached_property
    def judged(self) -> NDArray[np.str_] | None:
        """Whether PixelCAM names the class of each image: `right`, `wrong`, or empty; None where nothing was scored."""
        predicted = self.predicted.get(ModelName.PIXELCAM)
        if predicted is None:
            return None
        return np.array([_judge(said, row.label) for said, row in zip(predicted, self.rows, strict=True)])


def _judge(predicted: str, label: str) -> str:
    return "" if not predicted else RIGHT if predicted == label else WRONG


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return what a name is sorted by: its digits as numbers, before letters of either case."""
    parts = _NUMBER.split(name)
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part.casefold()) for part in parts if part]


def read_collections(params: Params, files: RunFiles) -> tuple[Collection, ...]:
    """Return what a run has to browse: the images of its store, and the test images of each prepared target domain.

    Raises:
        PixelCAMError: a table is damaged, or there is nothing at all.
    """
    names = list(dict.fromkeys((params.source, *params.target_domains)))
    domains = {
        name: read_domain(name, params, files.prepared / name, as_reviewed=False)  # images are set aside here
        for name in names
        if (files.prepared / name / CLASSES).is_file()
    }
    path = files.metrics / PER_IMAGE
    scores = _read_scores(path) if path.is_file() else None
    found = [*_of_store(files.store, domains)]
    found += [_of_tests(domains[name], scores) for name in params.target_domains if name in domains]
    kept = tuple(collection for collection in found if len(collection))
    if not kept:
        raise PixelCAMError(f"{files.prepared}: holds no prepared domain of these params; run 'make repro' first")
    return kept


def _of_store(path: Path, domains: Mapping[str, PreparedDomain]) -> Iterator[Collection]:
    """Yield the images of a store that are in the manifest of its domain, if there is a store."""
    if not path.is_dir():
        return
    store = PseudoLabelStore(path)
    domain = domains.get(str(store.attributes.get("domain")))
    if domain is None:
        return
    known = {row.image: row for row in domain.manifest.rows}
    kept = [place for place, image in enumerate(store.image_ids) if image in known]
    counts = store.counts()[kept].astype(np.float64)
    lost = len(store) - len(kept)
    yield Collection(
        key="labels",
        title=f"{domain.name}, training",
        domain=domain,
        rows=tuple(known[store.image_ids[place]] for place in kept),
        numbers={FOREGROUND_SHARE: counts[:, FOREGROUND:-1].sum(axis=1) / counts.sum(axis=1)},
        store=store,
        remarks=(f"{lost} images of the store are no longer in the manifest; extract the labels again.",) * bool(lost),
    )


def _of_tests(domain: PreparedDomain, scores: pd.DataFrame | None) -> Collection:
    """Return the test images of a domain with what both models got for each."""
    rows = domain.manifest.of_split(Split.TEST).rows
    place = {row.image: number for number, row in enumerate(rows)}
    numbers: dict[str, Floats] = {}
    predicted: dict[str, tuple[str, ...]] = {}
    for model in ModelName:
        if scores is None:
            break
        own = scores[(scores["domain"] == domain.name) & (scores["model"] == model)]
        found = np.array([place.get(image, -1) for image in own["image"].tolist()], dtype=np.int64)
        own, places = own[found >= 0], found[found >= 0]
        if not len(places):
            continue
        for column in ("dice", "confidence"):
            numbers[f"{model}_{column}"] = _spread(own[column], places, len(rows))
        if DISAGREEMENT in own:
            numbers[DISAGREEMENT] = _spread(own[DISAGREEMENT], places, len(rows))
        said = dict(zip(places.tolist(), own["predicted_class"].tolist(), strict=True))
        predicted[model] = tuple(said.get(number, "") for number in range(len(rows)))
    numbers = {name: values for name, values in numbers.items() if not np.isnan(values).all()}
    remarks = () if predicted else ("These images were not scored yet: run evaluate_ood to sort them by scores.",)
    return Collection(
        key=f"test-{domain.name}",
        title=f"{domain.name}, test",
        domain=domain,
        rows=rows,
        numbers=numbers,
        predicted=predicted,
        remarks=remarks,
    )


def _spread(column: "pd.Series[Any]", places: NDArray[np.int64], count: int) -> Floats:
    """Return the values of a column at the places of their images, NaN elsewhere."""
    values = np.full(count, np.nan)
    values[places] = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    return values


def _read_scores(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, usecols=lambda column: column in (*NEEDED, DISAGREEMENT)
        )
    except (OSError, ValueError) as error:
        raise PixelCAMError(f"{path}: cannot be read as scores ({error}); run 'dvc repro -f evaluate_ood'") from error
    missing = sorted(set(NEEDED) - set(table.columns))
    if missing:
        raise PixelCAMError(f"{path}: lacks the column {missing[0]}; run 'dvc repro -f evaluate_ood'")
    return table
