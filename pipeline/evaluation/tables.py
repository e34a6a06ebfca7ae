"""Scores as files and tables: what evaluation found, every model against every domain, images worth a look."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.evaluation.domains import Variant
from pipeline.metrics import curves
from pipeline.metrics.scores import Evaluation, ModelName
from pipeline.params.errors import PixelCAMError

CURVE_POINTS: Final = 200
TEXT_COLUMNS: Final = ("domain", "model", "image", "patient", "label", "predicted_class", "class_by_pixels")
NUMBER_COLUMNS: Final = ("class_idx", "correct", "probability", "confidence", "threshold")
OPTIONAL_COLUMNS: Final = (
    "ap",
    "dice",
    "iou",
    "foreground_share_predicted",
    "foreground_share_mask",
    "false_positive_share",
    "disagreement",
)


@dataclass(frozen=True)
class ChosenImage:
    """An image for a gallery, and in a few words why it was chosen."""

    image: str
    reason: str


def scores_by_domain(evaluations: Iterable[Evaluation]) -> dict[str, dict[str, dict[str, object]]]:
    """Return `{domain: {model: {score: value}}}` for JSON: NaN becomes None, fractions have six decimals.

    The teacher has no `over_teacher`.
    """
    result: dict[str, dict[str, dict[str, object]]] = {}
    for evaluation in evaluations:
        values = asdict(evaluation.scores) | {"threshold_source": evaluation.scores.threshold_source.value}
        result.setdefault(evaluation.domain, {})[evaluation.model.value] = {
            key: jsonable(value) for key, value in values.items() if value != {}
        }
    return result


def per_image_tables(evaluations: Iterable[Evaluation]) -> Iterator[pd.DataFrame]:
    """Yield one row per domain, model and image, for people to sort and filter; fractions have six decimals.

    Yields:
        the table piece by piece, as the images' scores are kept.
    """
    for evaluation in evaluations:
        first = 0
        for block in evaluation.images.blocks:
            yield _per_image_rows(evaluation, block, rows=slice(first, first := first + len(block)))


def _per_image_rows(evaluation: Evaluation, values: NDArray[np.void], *, rows: slice) -> pd.DataFrame:
    classes = evaluation.classes
    class_idx, predicted_idx = values["class_idx"], values["predicted_idx"]
    table = {
        "domain": evaluation.domain,
        "model": evaluation.model.value,
        "image": evaluation.images.image[rows],
        "patient": evaluation.images.patient[rows],
        "label": [classes[index] for index in class_idx.tolist()],
        "class_idx": class_idx,
        "predicted_class": [classes[index] for index in predicted_idx.tolist()],
        "class_by_pixels": ["" if index < 0 else classes[index] for index in values["by_pixels_idx"].tolist()],
        "correct": predicted_idx == class_idx,
        "probability": values["probability"].astype(np.float64),
        "confidence": values["confidence"].astype(np.float64),
        "threshold": evaluation.scores.threshold,
        **{name: values[name] for name in OPTIONAL_COLUMNS},
    }
    return pd.DataFrame(table).round(6)


def curve_table(evaluations: Iterable[Evaluation]) -> pd.DataFrame:
    """Return pooled precision-recall curves with columns domain, model, threshold, precision, recall.

    Each curve keeps about 200 points, evenly spread over recall, with both ends; without foreground it has none.
    """
    columns = ("domain", "model", "threshold", "precision", "recall")
    tables = [_curve_rows(evaluation) for evaluation in evaluations]
    return pd.DataFrame([row for table in tables for row in table], columns=list(columns)).round(6)


def _curve_rows(evaluation: Evaluation) -> list[tuple[str, str, float, float, float]]:
    curve = curves.precision_recall_curve(evaluation.histogram)
    known = ~(curve.precision.isnan() | curve.recall.isnan())
    points = list(
        zip(*(part[known].tolist() for part in (curve.thresholds, curve.precision, curve.recall)), strict=True)
    )
    return [(evaluation.domain, evaluation.model.value, *point) for point in _thin(points)]


def _thin(points: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Keep the first point of each of 200 recall steps, and the last point; recall falls along `points`."""
    kept: list[tuple[float, float, float]] = []
    steps: set[int] = set()
    for point in points:
        step = int(point[2] * CURVE_POINTS)
        if step not in steps or point == points[-1]:
            steps.add(step)
            kept.append(point)
    return kept


def jsonable(value: object, *, digits: int = 6) -> object:
    """Replace NaN, which JSON does not know, by None, and round fractions; in nested mappings and lists too."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item, digits=digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item, digits=digits) for item in value]
    if isinstance(value, float):
        return None if isnan(value) else round(value, digits)
    return value


def read_per_image_table(path: Path) -> pd.DataFrame:
    """Read what `per_image_tables` gave and `write_csv` wrote; names stay text, even "NA" or "007", and empty is NaN.

    Raises:
        PixelCAMError: the file is missing or is no such table.
    """
    texts = dict.fromkeys(TEXT_COLUMNS, "str")
    try:
        table = pd.read_csv(
            path, dtype=texts, keep_default_na=False, na_values={name: [""] for name in OPTIONAL_COLUMNS}
        )
    except (OSError, ValueError) as error:
        raise PixelCAMError(f"{path}: cannot be read as a table of scores ({error}); run evaluate_ood again") from error
    missing = [column for column in (*TEXT_COLUMNS, *NUMBER_COLUMNS, *OPTIONAL_COLUMNS) if column not in table.columns]
    if missing:
        raise PixelCAMError(f"{path}: the column {missing[0]} is missing; run evaluate_ood again")
    return table


def choose_images(per_image: pd.DataFrame, *, domain: str, count: int) -> tuple[ChosenImage, ...]:
    """Choose images of a domain that show how well PixelCAM localizes: best, median, worst and evenly between.

    Images are ranked by PixelCAM's Dice, equal ones by name. Where some images hold no region of interest, a third of
    the choice are such, ranked by how much is predicted there all the same. Without any mask the choice is by name.

    Args:
        per_image: what `read_per_image_table` gives.
        domain: whose images.
        count: how many at most.

    Returns:
        From best to worst, then those without region of interest.
    """
    rows = per_image[(per_image["domain"] == domain) & (per_image["model"] == ModelName.PIXELCAM.value)]
    with_roi = rows[rows["dice"].notna()].sort_values(["dice", "image"], ascending=[False, True])["image"].tolist()
    without = rows[rows["dice"].isna() & rows["false_positive_share"].notna()]
    without_roi = without.sort_values(["false_positive_share", "image"])["image"].tolist()
    if not with_roi and not without_roi:
        return tuple(ChosenImage(name, "no mask") for _, name in _spread(sorted(rows["image"]), count=count))
    shown_without = min(len(without_roi), max(count // 3, count - len(with_roi)))
    return (
        *(
            ChosenImage(name, _place(rank, of=len(with_roi)))
            for rank, name in _spread(with_roi, count=count - shown_without)
        ),
        *(
            ChosenImage(name, f"no region of interest, {_place(rank, of=len(without_roi))}")
            for rank, name in _spread(without_roi, count=shown_without)
        ),
    )


def _spread(names: Sequence[str], *, count: int) -> list[tuple[int, str]]:
    """Pick `count` of ranked names evenly, with both ends and the median from three on; return (rank from 0, name)."""
    if count >= len(names):
        return list(enumerate(names))
    if count <= 1:
        ranks = [(len(names) - 1) // 2][:count]
    else:
        ranks = [(2 * step * (len(names) - 1) + count - 1) // (2 * (count - 1)) for step in range(count)]
    if count >= 3:
        ranks[(count - 1) // 2] = (len(names) - 1) // 2
    return [(rank, names[rank]) for rank in ranks]


def _place(rank: int, *, of: int) -> str:
    names = {(of - 1) // 2: "median", of - 1: "worst", 0: "best"}  # of one image: the best
    return f"{names.get(rank, f'rank {rank + 1}')} of {of}"


HEADLINE: Final = ("pxap", "dice", "accuracy")
SLIDES_HEADLINE: Final = ("auroc", "froc", "dice")
SCORES: Final = ("pxap", "dice", "accuracy", "balanced_accuracy")
DROPS: Final = ("pxap", "accuracy")

ScoresByDomain = dict[str, dict[str, dict[str, object]]]
Scored = Mapping[Variant, Sequence[Evaluation]]


def matrix_table(scored: Scored, *, source: str) -> pd.DataFrame:
    """Return one row per variant, domain and model: what was scored, four scores, and two drops from in domain.

    A drop is the score on the source minus that on the row's domain, of the same model and variant. Fractions have six
    decimals; a score that is not defined is NaN.

    Args:
        scored: the evaluations of each variant, in the order of the rows; the source is among the domains.
        source: the domain that the models learned from.
    """
    rows = [row for variant, evaluations in scored.items() for row in _rows(variant, evaluations, source)]
    return pd.DataFrame(rows).round(6)


def _rows(variant: Variant, evaluations: Sequence[Evaluation], source: str) -> Iterator[dict[str, object]]:
    at_home = {each.model: each.scores for each in evaluations if each.domain == source}
    for each in evaluations:
        yield {
            "seed": variant.seed,
            "weights": variant.weights.value,
            "test_time": variant.test_time.value,
            "adapted_to": variant.adapted_to,
            "adaptation": variant.adaptation,
            "domain": each.domain,
            "in_domain": each.domain == source,
            "model": each.model.value,
            **{score: getattr(each.scores, score) for score in SCORES},
            **{f"{score}_drop": getattr(at_home[each.model], score) - getattr(each.scores, score) for score in DROPS},
        }


def headline(scores: ScoresByDomain, adaptations: Mapping[str, Mapping[str, Any]] | None = None) -> ScoresByDomain:
    """Return the few scores that experiments are compared by, so that DVC's tables of them fit on a screen.

    Args:
        scores: `{domain: {model: {score: value}}}`.
        adaptations: what `adaptation_scores` gives: scores of adapted models stand beside those of the same domain.
    """
    known = adaptations or {}
    return {
        domain: {model: _headline(values, *_adapted(known.get(domain), model)) for model, values in models.items()}
        for domain, models in scores.items()
    }


def _adapted(adaptation: Mapping[str, Any] | None, model: str) -> tuple[str, Mapping[str, Any]]:
    """Return what the scores of an adapted model are called, so that only like stands beside like, and the scores."""
    if adaptation is None:
        return "", {}
    kind = "adapted_transductive" if adaptation["transductive"] else "adapted"
    return kind, adaptation["models"][model]["adapted"]


def _headline(values: Mapping[str, Any], kind: str, adapted: Mapping[str, Any]) -> dict[str, object]:
    of_slides = values.get("slides", {})
    return (
        {score: values[score] for score in HEADLINE}
        | {f"{kind}_{score}": adapted[score] for score in HEADLINE if score in adapted}
        | {f"slides_{score}": of_slides[score] for score in SLIDES_HEADLINE if score in of_slides}
    )


def with_slides(scores: ScoresByDomain, of_slides: Mapping[str, Mapping[str, Any]]) -> ScoresByDomain:
    """Add to each model's scores on a domain those of its whole slides, as `slides`, where it has any.

    Args:
        scores: `{domain: {model: {score: value}}}`.
        of_slides: `{domain: {model: SlideScores}}`.
    """
    return {
        domain: {
            model: values | ({"slides": of_slides[domain][model]} if domain in of_slides else {})
            for model, values in models.items()
        }
        for domain, models in scores.items()
    }


def with_spread(scores: ScoresByDomain, scored: Scored) -> ScoresByDomain:
    """Add to each model's scores on a domain their `over_seeds`: mean, standard deviation and number of the chains.

    The standard deviation is that of a sample (n - 1). Of one chain alone nothing is added.

    Args:
        scores: `{domain: {model: {score: value}}}`, of the first variant.
        scored: the evaluations of each variant.
    """
    first = next(iter(scored))
    chains = [found for variant, found in scored.items() if replace(variant, seed=first.seed) == first]
    if len(chains) < 2:
        return scores
    spread = {
        (same[0].domain, same[0].model.value): {
            score: jsonable(_spread_over_seeds([getattr(each.scores, score) for each in same])) for score in SCORES
        }
        for same in zip(*chains, strict=True)
    }
    return {
        domain: {model: values | {"over_seeds": spread[domain, model]} for model, values in models.items()}
        for domain, models in scores.items()
    }


def _spread_over_seeds(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "standard_deviation": float(np.std(values, ddof=1)), "chains": len(values)}
