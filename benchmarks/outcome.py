"""What a benchmark finds: a figure, what it was to reach, and whether it has."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any

from benchmarks.timing import Times


class Reach(StrEnum):
    """Whether a target is a ceiling or a floor."""

    AT_MOST = "at most"
    AT_LEAST = "at least"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One figure beside its target.

    Attributes:
        row: the benchmark.
        case: which of its cases, such as an encoder.
        work: what was measured, and `against`: what it was compared with.
        figure: the value, in `unit`.
        reach: how to read `target`, which is None where a figure is there to be known alone.
        details: what the figure comes from, in JSON's types.
    """

    row: str
    case: str
    work: str
    against: str
    figure: float
    unit: str
    reach: Reach
    target: float | None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Tell whether the target was reached."""
        if self.target is None:
            return True
        return self.figure <= self.target if self.reach is Reach.AT_MOST else self.figure >= self.target

    def as_json(self) -> dict[str, Any]:
        """Return all of it in JSON's types."""
        return {**asdict(self), "reach": self.reach.value, "reached": self.reached, "details": dict(self.details)}


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A row, or a case of one, that could not be measured here, and why."""

    row: str
    case: str
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return all of it in JSON's types."""
        return {**asdict(self), "skipped": True}


def cost(row: str, case: str, work: str, against: str, *, times: Times, target: float | None) -> Outcome:
    """Return how many times as long the one takes as the other, to be at most `target` where there is one."""
    return Outcome(
        row=row,
        case=case,
        work=work,
        against=against,
        figure=times.ratio,
        unit="times as long",
        reach=Reach.AT_MOST,
        target=target,
        details=seconds(times),
    )


def speed(row: str, case: str, work: str, against: str, *, times: Times, target: float) -> Outcome:
    """Return how many times as fast the one is as the other, to be at least `target`."""
    return Outcome(
        row=row,
        case=case,
        work=work,
        against=against,
        figure=1 / times.ratio,
        unit="times as fast",
        reach=Reach.AT_LEAST,
        target=target,
        details=seconds(times),
    )


def seconds(times: Times) -> dict[str, Any]:
    """Return the medians, and the ratios of all rounds."""
    return {
        "work_seconds": median(times.ours),
        "against_seconds": median(times.theirs),
        "ratios": [round(ratio, 4) for ratio in times.ratios],
    }
