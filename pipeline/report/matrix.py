"""The domain matrix as tables for people: domains, selections of weights, means over seeds, and adapted models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pandas as pd

from pipeline.evaluation.adapted import SOURCE_ONLY, SUPERVISED, TRANSDUCTIVE
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptationMethod, TestTime, Weights
from pipeline.report.parts import MODELS
from pipeline.report.wording import percent, tenths_over

SCORES: Final = {"pxap": "PxAP", "accuracy": "Accuracy"}  # of the matrix' columns those that the tables show
TEXT_COLUMNS: Final = ("weights", "test_time", "adapted_to", "adaptation", "domain", "model")
COLUMNS: Final = ("seed", *TEXT_COLUMNS, "in_domain", *SCORES, *(f"{score}_drop" for score in SCORES))
TEST_TIME: Final = {
    TestTime.NONE: "images as they are",
    TestTime.MACENKO: "stain normalized (Macenko)",
    TestTime.REINHARD: "stain normalized (Reinhard)",
    TestTime.BATCH_NORM: "batch-norm statistics of the domain",
}
WEIGHTS: Final = {
    Weights.SELECTED: "selected",
    Weights.LAST: "last epoch",
    Weights.VAL_ACCURACY: "best accuracy on validation (B-CL)",
    Weights.VAL_LOSS: "lowest loss on validation",
    Weights.VAL_PXAP: "best PxAP on validation masks (B-LOC)",
}
METHODS: Final = {
    AdaptationMethod.BATCH_NORM: "AdaBN",
    AdaptationMethod.TENT: "Tent",
    AdaptationMethod.SHOT: "SHOT",
    AdaptationMethod.LABEL_SHIFT: "label shift",
    AdaptationMethod.SELF_TRAINING: "self-training",
    AdaptationMethod.SFDA_DEP: "SFDA-DeP",
}


@dataclass(frozen=True)
class Cell:
    """A score in per cent, a dash where it is not defined; `detail` stands small beneath it and may be empty."""

    value: str
    detail: str


@dataclass(frozen=True)
class Row:
    """A row of a table: what it is about, and a cell per score and model, the teacher's before PixelCAM's."""

    title: str
    cells: tuple[Cell, ...]
    note: str = ""  # stands small beneath the title


@dataclass(frozen=True)
class Group:
    """Rows under a title of their own, which is empty where a table has one group only."""

    title: str
    rows: tuple[Row, ...]


def read_matrix(path: Path) -> pd.DataFrame:
    """Read the domain matrix; names stay text, even "NA" or "007".

    Its first rows, one per domain and model, are the scores proper; then follow other options at test time, other
    selections' weights, and other seeds, each with all else as in the first, and models that were adapted to a domain.

    Raises:
        PixelCAMError: the file is missing or is no such table.
    """
    texts = dict.fromkeys(TEXT_COLUMNS, "str")
    numbers = [column for column in COLUMNS if column not in TEXT_COLUMNS]
    try:
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={key: [""] for key in numbers})
    except (OSError, ValueError) as error:
        raise PixelCAMError(f"{path}: cannot be read as a domain matrix ({error}); run 'dvc repro'") from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing or table.empty:
        fault = f"the column {missing[0]} is missing" if missing else "it holds no row"
        raise PixelCAMError(f"{path}: {fault}; run 'dvc repro'")
    return table


def domain_groups(matrix: pd.DataFrame) -> tuple[Group, ...]:
    """Return a group per option at test time with a row per domain; details are drops from in domain, in points."""
    return tuple(
        Group(TEST_TIME.get(option, option), tuple(_rows(rows, by="domain", detail=_drop)))  # type: ignore[call-overload]
        for option, rows in _proper(matrix, free="test_time").groupby("test_time", sort=False)
    )


def selection_groups(matrix: pd.DataFrame) -> tuple[Group, ...]:
    """Return a group per domain with a row per selection; none where only one selection's weights were scored."""
    rows = _proper(matrix, free="weights")
    if rows["weights"].nunique() < 2:
        return ()
    named = rows.assign(weights=[WEIGHTS.get(name, name) for name in rows["weights"]])
    return tuple(
        Group(str(domain), tuple(_rows(of_domain, by="weights", detail=lambda _row, _score: "")))
        for domain, of_domain in named.groupby("domain", sort=False)
    )


def seed_groups(matrix: pd.DataFrame) -> tuple[Group, ...]:
    """Return a row per domain with the mean over seeds, and as details the standard deviation (n - 1); or none of one.

    A score that is not defined for some seed has neither.
    """
    rows = _proper(matrix, free="seed")
    if rows["seed"].nunique() < 2:
        return ()
    domains = rows.groupby("domain", sort=False)
    return (Group("", tuple(Row(str(domain), tuple(_spread(found))) for domain, found in domains)),)


def seed_count(matrix: pd.DataFrame) -> int:
    """Return over how many seeds the means are taken."""
    return int(_proper(matrix, free="seed")["seed"].nunique())


def adaptation_groups(matrix: pd.DataFrame) -> tuple[Group, ...]:
    """Return a group per domain that models were adapted to, or trained on as a bound; none where there is none.

    Its rows are the models before, each adaptation, and the bound; details are changes from before, in points.
    """
    before = _proper(matrix, free="")
    adapted = matrix[matrix["adapted_to"] == matrix["domain"]]
    return tuple(
        Group(str(domain), tuple(_adaptation_rows(before[before["domain"] == domain], of_domain)))
        for domain, of_domain in adapted.groupby("domain", sort=False)
    )


def _adaptation_rows(before: pd.DataFrame, adapted: pd.DataFrame) -> Iterator[Row]:
    known = {(str(row["model"]), score): _known(row[score]) for _, row in before.iterrows() for score in SCORES}

    def change(row: pd.Series, score: str) -> str:
        moved = tenths_over(_known(row[score]), known.get((str(row["model"]), score)))
        if row["adaptation"] == SOURCE_ONLY or moved is None:
            return ""
        return _moved(moved / 1000) if moved else "as before"

    for row in _rows(pd.concat([before, adapted]), by="adaptation", detail=change):
        title, note = _describe_adaptation(row.title)
        yield replace(row, title=title, note=note)


def _describe_adaptation(name: str) -> tuple[str, str]:
    """Return what people call a row of the column `adaptation`, and what they must know of it."""
    if name == SOURCE_ONLY:
        return "source only", "no image of the domain was seen"
    if name == SUPERVISED:
        return "supervised", "learned from the domain's labels and masks: a bound"
    method = name.removesuffix(TRANSDUCTIVE)
    title = METHODS.get(method, method)  # type: ignore[call-overload]
    if method == name:
        return title, "other images of the domain, without labels"
    return f"{title}{TRANSDUCTIVE}", "adapted to the very images that are scored"


def _proper(matrix: pd.DataFrame, *, free: str) -> pd.DataFrame:
    """Return the rows that differ from the first in seed, weights and option at test time by `free` alone.

    So none is of a model that was adapted.
    """
    first = matrix.iloc[0]
    kept = matrix["adaptation"] == SOURCE_ONLY
    for column in ("seed", "weights", "test_time"):
        if column != free:
            kept &= matrix[column] == first[column]
    return matrix[kept]


def _rows(table: pd.DataFrame, *, by: str, detail: Callable[[pd.Series, str], str]) -> Iterator[Row]:
    for title, found in table.groupby(by, sort=False):
        of_model = {str(row["model"]): row for _, row in found.iterrows()}
        cells = [
            Cell(percent(_known(of_model[model][score])), detail(of_model[model], score))
            if model in of_model
            else Cell(percent(None), "")
            for score in SCORES
            for model in MODELS
        ]
        yield Row(str(title), tuple(cells), "in domain" if by == "domain" and bool(found["in_domain"].all()) else "")


def _drop(row: pd.Series, score: str) -> str:
    """Say by how many points a score lies below that in domain; nothing in domain itself."""
    drop = _known(row[f"{score}_drop"])
    if bool(row["in_domain"]) or drop is None:
        return ""
    return _moved(-drop)


def _moved(change: float) -> str:
    """Say by how many points a score has risen or fallen."""
    return f"{'gain' if change > 0 else 'drop'} {percent(abs(change))}"


def _spread(rows: pd.DataFrame) -> Iterator[Cell]:
    for score in SCORES:
        for model in MODELS:
            values = rows[rows["model"] == model][score]
            known = len(values) > 1 and bool(values.notna().all())
            yield Cell(percent(values.mean()), f"± {percent(values.std(ddof=1))}") if known else Cell(percent(None), "")


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
