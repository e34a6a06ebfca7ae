"""Markdown in which names from outside stay text: whatever a class is called, it makes no markup and no column."""

import re
import string
from collections.abc import Iterable, Sequence
from typing import Final

NOT_DEFINED: Final = "–"
MINUS: Final = "−"
# Words, with underscores within them alone, between marks that mean nothing there; www. would become a link.
_HARMLESS: Final = re.compile(r"(?!.*www\.)\(?[^\W_]+(?:_+[^\W_]+|(?:[ .,()+-]|: )+[^\W_]+)*\)?", flags=re.IGNORECASE)
_PUNCTUATION: Final = str.maketrans({mark: f"\\{mark}" for mark in string.punctuation})


def plain(text: str) -> str:
    """Return a name so that Markdown shows it as it is, on one line."""
    one_line = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return one_line if _HARMLESS.fullmatch(one_line) else one_line.translate(_PUNCTUATION)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown."""
    lines = (titles, ["---"] * len(titles), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def listed(names: Sequence[str], *, last: str = "and") -> str:
    """Return names as words: "a", "a and b", "a, b and c"."""
    *others, end = names
    return f"{', '.join(others)} {last} {end}" if others else end


def percent(fraction: float | None) -> str:
    """Return a fraction in per cent with one decimal and no sign; a dash where it is not defined."""
    return NOT_DEFINED if fraction is None else f"{100 * fraction:.1f}"


def interval(low: float | None, high: float | None) -> str:
    """Return the ends of an interval in per cent; a dash where one is not defined."""
    if low is None or high is None:
        return NOT_DEFINED
    return f"{percent(low)} to {percent(high)}".replace("-", MINUS)


def points(difference: float | None) -> str:
    """Return a difference of fractions in points with its sign; a dash where it is not defined."""
    if difference is None:
        return NOT_DEFINED
    tenths = f"{100 * abs(difference):.1f}"
    return f"±{tenths}" if tenths == "0.0" else f"{'+' if difference > 0 else MINUS}{tenths}"


def count(number: int, thing: str) -> str:
    """Return a number and what it counts: "1 image", "2 images"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
