"""The one error that a user is meant to read: stages and commands print it without a traceback and exit with 1."""


class PixelCAMError(Exception):
    """Say what is wrong, where, what was expected, and the remedy, in words for the person at the terminal."""
