"""Scores in words and rows: what a table of fractions says about PixelCAM against its teacher, also when it lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

NOT_DEFINED: Final = "–"
MINUS: Final = "−"
SCORES: Final = {
    "pxap": "PxAP",
    "dice": "Dice",
    "iou": "IoU",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
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
        _score_row(title, key, teacher=scores["teacher"], pixelcam=scores["pixelcam"]) for key, title in SCORES.items()
    )


def describe_verdict(domains: Sequence[DomainScores]) -> str:
    """Say in one sentence how PixelCAM did against its teacher at both tasks, domain by domain."""
    clauses: list[str] = []
    for name, in_domain, scores in domains:
        where = "in domain" if in_domain else "out of domain"
        subject, rival = ("it", "") if clauses else ("PixelCAM", "its teacher")
        clauses.append(f"{where} ({name}), {subject} {_describe_domain(scores, rival=rival)}")
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
    return _Comparison(**printed, tenths=round(float(printed["pixelcam"]) * 10) - round(float(printed["teacher"]) * 10))


def _describe(verb: str, measure: str, comparison: _Comparison | None, *, rival: str) -> str:
    if comparison is None:
        return f"cannot be scored for {measure}"
    if comparison.tenths == 0:
        return f"{verb} as well{f' as {rival}' if rival else ''} ({measure} {comparison.pixelcam})"
    word = "better" if comparison.tenths > 0 else "worse"
    than = f" than {rival}" if rival else ""
    return f"{verb} {word}{than} ({measure} {comparison.pixelcam} against {comparison.teacher})"


def _score_row(title: str, key: str, *, teacher: Mapping[str, Any], pixelcam: Mapping[str, Any]) -> ScoreRow:
    comparison = _compare(teacher=teacher[key], pixelcam=pixelcam[key])
    tenths = 0 if comparison is None else comparison.tenths
    over_teacher = pixelcam.get("over_teacher", {}).get(key)
    sign = "+" if tenths > 0 else MINUS if tenths < 0 else "±"
    return ScoreRow(
        title=title,
        teacher=percent(teacher[key]),
        teacher_interval=_interval(teacher.get("intervals", {}).get(key)),
        pixelcam=percent(pixelcam[key]),
        pixelcam_interval=_interval(pixelcam.get("intervals", {}).get(key)),
        difference_interval=_interval(over_teacher),
        p_value=_p_value(over_teacher),
        difference=NOT_DEFINED if comparison is None else f"{sign}{abs(tenths) / 10:.1f}",
        better="pixelcam" if tenths > 0 else "teacher" if tenths < 0 else "",
    )


def _interval(bounds: Mapping[str, float | None] | None) -> str:
    """Write the ends of an interval in per cent; empty where it is not known."""
    if bounds is None or bounds["low"] is None or bounds["high"] is None:
        return ""
    low, high = (f"{bounds[end] * 100:.1f}".replace("-", MINUS) for end in ("low", "high"))  # type: ignore[operator]
    return f"{low} to {high}"


def _p_value(over_teacher: Mapping[str, float | None] | None) -> str:
    """Write a p value with three decimals; empty where it is not known."""
    if over_teacher is None or over_teacher["p_value"] is None:
        return ""
    return "p < 0.001" if over_teacher["p_value"] < 0.001 else f"p = {over_teacher['p_value']:.3f}"
