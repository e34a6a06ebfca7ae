"""What evaluation wrote of adapted models, read for the page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.evaluation.adapted import AdaptationEpoch
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptationMethod
from pipeline.report.adaptation_parts import AdaptedDomain, AdaptedModel, Scores
from pipeline.report.parts import MODELS

FRACTIONS: Final = ("pxap", "dice", "accuracy", "balanced_accuracy")
ENDS: Final = ("low", "high", "p_value")


def read_adaptations(path: Path, names: Sequence[str]) -> list[AdaptedDomain]:
    """Return what is known of every domain that models were adapted to, in the order of `names`.

    Args:
        path: what `evaluate_ood` wrote, JSON.
        names: the domains that the params name.

    Raises:
        PixelCAMError: the file is missing, damaged, or lacks a domain.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in names if name not in content]
        if missing:
            raise PixelCAMError(f"{path}: lacks the adaptation to '{missing[0]}'; run 'dvc repro'")
        return [_domain(name, content[name]) for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise PixelCAMError(
            f"{path}: cannot be read as scores of adapted models ({error!r}); run 'dvc repro'"
        ) from error


def _domain(name: str, entry: Mapping[str, Any]) -> AdaptedDomain:
    models = {model: entry["models"][model] for model in MODELS}
    return AdaptedDomain(
        name=name,
        source=str(models["pixelcam"]["source_domain"]["name"]),
        method=AdaptationMethod(entry["method"]),
        transductive=bool(entry["transductive"]),
        images=int(entry["images"]),
        models={model: _model(values) for model, values in models.items()},
    )


def _model(values: Mapping[str, Any]) -> AdaptedModel:
    run, source, over = values["course"], values["source_domain"], values["over_source_only"]
    model = AdaptedModel(
        source_only=_scores(values["source_only"]),
        adapted=_scores(values["adapted"]),
        supervised=None if values["supervised"] is None else _scores(values["supervised"]),
        over_source_only={score: {end: _number(over[score][end]) for end in ENDS} for score in FRACTIONS},
        source_before=_scores(source["source_only"]),
        source_after=_scores(source["adapted"]),
        chosen_by=str(run["chosen_by"]),
        chosen_epoch=int(run["chosen_epoch"]),
        stopped=None if run["stopped"] is None else str(run["stopped"]),
        start_collapsed=bool(run["start_collapsed"]),
        course=[_epoch(each) for each in run["course"]],
    )
    _ = model.chosen  # is there
    return model


def _scores(values: Mapping[str, Any]) -> Scores:
    shares = {str(name): float(share) for name, share in values["predicted_classes"].items()}
    return {score: _number(values[score]) for score in FRACTIONS} | {"predicted_classes": shares}


def _number(value: Any) -> float | None:  # noqa: ANN401 - whatever JSON holds
    return None if value is None else float(value)


def _epoch(values: Mapping[str, Any]) -> AdaptationEpoch:
    return AdaptationEpoch(
        epoch=int(values["epoch"]),
        mutual_information=float(values["mutual_information"]),
        largest_class=str(values["largest_class"]),
        largest_share=float(values["largest_share"]),
    )
