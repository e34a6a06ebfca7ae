"""Scores in words and rows: what a table of fractions says about PixelCAM against its teacher, also when it lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

NOT_DEFINED: Final = "–"
MINUS: Final = "−"
SCORES: Final = {
    "pxap": "PxAP",
    "dice": "Dice",
    "iou": "IoU",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
}

MORE_SCORES: Final = {  # keys that lead to a score in evaluation.json, and its title
    ("pxap_predicted_class",): "PxAP, map of the predicted class",
    ("pixel_auroc",): "Pixel AUROC",
    ("image_ap",): "Average precision, mean over images",
    ("boxes", "max_box_acc_v2"): "MaxBoxAccV2",
    ("regions", "validation", "dice"): "Dice, threshold chosen on validation",
    ("regions", "mask_free", "dice"): "Dice, threshold chosen without masks",
    ("regions", "mask_free_image", "dice"): "Dice, threshold of each image chosen without masks",
    ("regions", "half", "dice"): "Dice, threshold 0.5",
    ("regions", "oracle", "dice"): "Dice, oracle threshold (chosen on these test images: a bound)",
    ("regions", "validation", "mean_iou"): "Mean IoU, threshold chosen on validation",
    ("regions", "validation", "false_positive_share"): "Marked where nothing is, threshold chosen on validation",
    ("regions", "mask_free", "false_positive_share"): "Marked where nothing is, threshold chosen without masks",
    ("regions", "half", "false_positive_share"): "Marked where nothing is, threshold 0.5",
    ("auroc",): "AUROC of the classifier",
    ("accuracy_by_pixels",): "Accuracy, images classified by their pixels",
    ("mean_iou_over_classes",): "Mean IoU over background and classes",
}

DomainScores = tuple[str, bool, Mapping[str, Mapping[str, Any]]]  # name, in domain, {"teacher": ..., "pixelcam": ...}


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A row of the score table, in per cent; `better` is "teacher", "pixelcam", or empty where they are level.

    The three intervals and the p value are empty where they are not known.
    """

    title: str
    teacher: str
    teacher_interval: str
    pixelcam: str
    pixelcam_interval: str
    difference: str
    difference_interval: str
    p_value: str
    better: str


def percent(fraction: float | None) -> str:
    """Write a fraction in per cent with one decimal and without sign; a dash where it is not defined."""
    return NOT_DEFINED if fraction is None else f"{fraction * 100:.1f}"


def score_rows(scores: Mapping[str, Mapping[str, Any]]) -> tuple[ScoreRow, ...]:
    """Set the two models' scores side by side."""
    return tuple(
        score_row(title, key, teacher=scores["teacher"], pixelcam=scores["pixelcam"]) for key, title in SCORES.items()
    )


def more_rows(scores: Mapping[str, Mapping[str, Any]]) -> tuple[ScoreRow, ...]:
    """Set the models' further scores side by side, those that either of them has."""
    keys = dict(MORE_SCORES)
    for score, title in (("class_iou", "IoU of the pixels of {}"), ("f1", "F1 of {}")):
        keys |= {(score, name): title.format(name) for name in scores["pixelcam"].get(score, {})}
    found = ((title, {model: _at(values, path) for model, values in scores.items()}) for path, title in keys.items())
    return tuple(
        score_row(title, title, teacher={title: values["teacher"]}, pixelcam={title: values["pixelcam"]})
        for title, values in found
        if values["teacher"] is not None or values["pixelcam"] is not None
    )


def _at(values: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """Return the number at the end of a path of keys, None where there is none."""
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return None if found is None else float(found)


def describe_convergence(name: str, history: pd.DataFrame) -> str:
    """Say in a sentence in which epoch a model was at its best at either task; empty where neither was validated."""
    clauses = []
    for column, verb, measure in (("val_pxap", "localizes", "PxAP"), ("val_accuracy", "classifies", "accuracy")):
        if column in history and history[column].notna().any():
            best = history[column].argmax()
            value = percent(float(history[column].iloc[best]))
            clauses.append(f"{verb} best in epoch {history['epoch'].iloc[best]:.0f} ({measure} {value})")
    return f"Of {len(history)} epochs, {name} {' and '.join(clauses)}." if clauses else ""


def describe_verdict(domains: Sequence[DomainScores]) -> str:
    """Say in one sentence how PixelCAM did against its teacher at both tasks, domain by domain."""
    clauses: list[str] = []
    for name, in_domain, scores in domains:
        where = "in domain" if in_domain else "out of domain"
        subject, rival = ("it", "") if clauses else ("PixelCAM", "its teacher")
        clauses.append(
            f"{where} ({name}), {subject} {_describe_domain(scores, rival=rival)}{_describe_collapse(scores)}"
        )
    sentence = "; ".join(clauses)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _describe_domain(scores: Mapping[str, Mapping[str, Any]], *, rival: str) -> str:
    teacher, pixelcam = scores["teacher"], scores["pixelcam"]
    classification = _compare(teacher=teacher["accuracy"], pixelcam=pixelcam["accuracy"])
    localization = _compare(teacher=teacher["pxap"], pixelcam=pixelcam["pxap"])
    classifies = _describe("classifies", "accuracy", classification, rival="" if localization else rival)
    if localization is None:
        return f"cannot be scored for localization and {classifies}"
    localizes = _describe("localizes", "PxAP", localization, rival=rival)
    opposed = classification is not None and localization.tenths * classification.tenths < 0
    return f"{localizes} {'but' if opposed else 'and'} {classifies}"


def _describe_collapse(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Say whose accuracy means nothing because one class is predicted for nearly all images; empty if nobody's."""
    teacher, pixelcam = (bool(scores[model].get("collapsed")) for model in ("teacher", "pixelcam"))
    if teacher and pixelcam:
        return ", though both predict one class for nearly all images"
    if teacher or pixelcam:
        return f", though {'it' if pixelcam else 'its teacher'} predicts one class for nearly all images"
    return ""


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Two scores as they are printed, and PixelCAM's lead over its teacher in tenths of a point."""

    teacher: str
    pixelcam: str
    tenths: int


def _compare(*, teacher: float | None, pixelcam: float | None) -> _Comparison | None:
    """Compare at the precision that is printed, so that words and figures never disagree; None if undefined."""
    if teacher is None or pixelcam is None:
        return None
    printed = {"teacher": percent(teacher), "pixelcam": percent(pixelcam)}
    return _Comparison(**printed, tenths=tenths_over(pixelcam, teacher) or 0)


def tenths_over(score: float | None, other: float | None) -> int | None:
    """Return by how many tenths of a point one score as it is printed lies above another; None if undefined."""
    if score is None or other is None:
        return None
    return round(float(percent(score)) * 10) - round(float(percent(other)) * 10)


def signed(tenths: int | None) -> str:
    """Write tenths of a point as points with their sign; a dash where they are not defined."""
    if tenths is None:
        return NOT_DEFINED
    return f"{'+' if tenths > 0 else MINUS if tenths < 0 else '±'}{abs(tenths) / 10:.1f}"


def _describe(verb: str, measure: str, comparison: _Comparison | None, *, rival: str) -> str:
    if comparison is None:
        return f"cannot be scored for {measure}"
    if comparison.tenths == 0:
        return f"{verb} as well{f' as {rival}' if rival else ''} ({measure} {comparison.pixelcam})"
    word = "better" if comparison.tenths > 0 else "worse"
    than = f" than {rival}" if rival else ""
    return f"{verb} {word}{than} ({measure} {comparison.pixelcam} against {comparison.teacher})"


def score_row(title: str, key: str, *, teacher: Mapping[str, Any], pixelcam: Mapping[str, Any]) -> ScoreRow:
    """Set one score of the two models side by side, with its intervals where they are known."""
    tenths = tenths_over(pixelcam[key], teacher[key])
    over_teacher = pixelcam.get("over_teacher", {}).get(key)
    return ScoreRow(
        title=title,
        teacher=percent(teacher[key]),
        teacher_interval=interval_words(teacher.get("intervals", {}).get(key)),
        pixelcam=percent(pixelcam[key]),
        pixelcam_interval=interval_words(pixelcam.get("intervals", {}).get(key)),
        difference_interval=interval_words(over_teacher),
        p_value=p_value_words(over_teacher),
        difference=signed(tenths),
        better="" if not tenths else "pixelcam" if tenths > 0 else "teacher",
    )


def interval_words(bounds: Mapping[str, float | None] | None) -> str:
    """Write the ends of an interval in per cent; empty where it is not known."""
    if bounds is None or bounds["low"] is None or bounds["high"] is None:
        return ""
    low, high = (f"{bounds[end] * 100:.1f}".replace("-", MINUS) for end in ("low", "high"))  # type: ignore[operator]
    return f"{low} to {high}"


def p_value_words(difference: Mapping[str, float | None] | None) -> str:
    """Write a p value with three decimals; empty where it is not known."""
    if difference is None or difference["p_value"] is None:
        return ""
    return "p < 0.001" if difference["p_value"] < 0.001 else f"p = {difference['p_value']:.3f}"
