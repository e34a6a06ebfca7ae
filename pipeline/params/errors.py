"""The one error that a user is meant to read: stages and commands print it without a traceback and exit with 1."""

from typing import Final

MAX_SHOWN: Final = 120  # characters of what came


class PixelCAMError(Exception):
    """Say what is wrong, where, what was expected, and the remedy, in words for the person at the terminal."""


def shown(text: str) -> str:
    """Return a text from data in quotes as a message can hold it: on one line, cut short, nothing unprintable."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    # Not repr for all: it would double the backslashes of a Windows path.
    return f"'{cut}'" if cut.isprintable() else repr(cut)


def named(text: str) -> str:
    """Return names of files or columns as a message can hold them: as they are, or as `shown` where that is no good."""
    return text if text.isprintable() and len(text) <= MAX_SHOWN else shown(text)
