"""What adapting to a domain changed there, against the same models before it, and whether the source is forgotten."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from pipeline.evaluation.adapted import SUPERVISED, AdaptedModels
from pipeline.evaluation.tables import Scored, jsonable
from pipeline.metrics.bootstrap import RESAMPLED_SCORES, compare
from pipeline.metrics.scores import Evaluation, ModelName

SHOWN: Final = ("pxap", "dice", "accuracy", "balanced_accuracy", "predicted_classes", "pixel_ece")

Places = Mapping[tuple[str, ModelName], Evaluation]  # by domain and model


def adaptation_scores(scored: Scored, adapted: Sequence[AdaptedModels], *, source: str) -> dict[str, dict[str, Any]]:
    """Return `{domain: {...}}` for JSON, of each domain that models were adapted to: NaN becomes None.

    `over_source_only` is the adapted model minus the one before, on the same resamples; `supervised` is None where
    nothing was trained on the domain; `course` is what the model's `adaptation.json` says.

    Args:
        scored: the evaluations of each variant, the scores proper first.
        adapted: the models that were adapted or trained on a domain, all of them scored.
        source: the domain that the models learned from.
    """
    before = _places(next(iter(scored.values())))
    found = {(variant.adapted_to, variant.adaptation): _places(of_variant) for variant, of_variant in scored.items()}
    return {
        each.domain: _of_domain(
            each,
            source=source,
            before=before,
            after=found[each.domain, each.name],
            bound=found.get((each.domain, SUPERVISED), {}),
        )
        for each in adapted
        if each.records
    }


def _places(evaluations: Sequence[Evaluation]) -> Places:
    return {(each.domain, each.model): each for each in evaluations}


def _of_domain(adapted: AdaptedModels, *, source: str, before: Places, after: Places, bound: Places) -> dict[str, Any]:
    record = adapted.records[ModelName.TEACHER]
    models: dict[str, Any] = {}
    for model, course in adapted.records.items():
        here, home = (adapted.domain, model), (source, model)
        models[model.value] = {
            "source_only": _shown(before[here]),
            "adapted": _shown(after[here]),
            "supervised": _shown(bound[here]) if here in bound else None,
            "over_source_only": _over(after[here], before[here]),
            "source_domain": {
                "name": source,
                "source_only": _shown(before[home]),
                "adapted": _shown(after[home]),
            },
            "course": jsonable(asdict(course)),
        }
    return {
        "method": record.method.value,
        "transductive": record.is_transductive,
        "images": record.images,
        "models": models,
    }


def _shown(evaluation: Evaluation) -> object:
    return jsonable({score: getattr(evaluation.scores, score) for score in SHOWN})


def _over(after: Evaluation, before: Evaluation) -> object:
    """Return by how much each resampled score has changed."""
    return jsonable(
        {
            score: asdict(
                compare(
                    after.resamples[score],
                    before.resamples[score],
                    difference=getattr(after.scores, score) - getattr(before.scores, score),
                )
            )
            for score in RESAMPLED_SCORES
        }
    )
