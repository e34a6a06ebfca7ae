"""The table that benchmarks print, line by line as they finish."""

from typing import Final

from benchmarks.outcome import Outcome, Skipped

COLUMNS: Final = {"row": 17, "case": 32, "work": 32, "against": 34, "figure": 25, "target": 15, "reached": 7}


def title() -> str:
    """Return the names of the columns."""
    return _line(*COLUMNS)


def line_of(outcome: Outcome | Skipped) -> str:
    """Return one figure as a line."""
    if isinstance(outcome, Skipped):
        return _line(outcome.row, outcome.case, f"not measured: {outcome.reason}")
    figure = f"{outcome.figure:.3g} {outcome.unit}"
    target = "none" if outcome.target is None else f"{outcome.reach} {outcome.target:g}"
    reached = "-" if outcome.target is None else "yes" if outcome.reached else "NO"
    return _line(outcome.row, outcome.case, outcome.work, outcome.against, figure, target, reached)


def _line(*cells: str) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, COLUMNS.values(), strict=False)).rstrip()
