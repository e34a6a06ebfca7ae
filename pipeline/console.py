"""What stages and commands share towards the person at the terminal: errors as sentences, quiet progress bars."""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Annotated, Final, NoReturn, ParamSpec, TypeVar

import typer
from tqdm import tqdm

from pipeline.errors import PixelCAMError
from pipeline.process import end_with_parent

Item = TypeVar("Item")
P = ParamSpec("P")

_DEBUG_HELP: Final = "Show the traceback of an error too; the variable PIXELCAM_DEBUG=1 does so under 'dvc repro'."
_DEBUG: Final = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", envvar="PIXELCAM_DEBUG", help=_DEBUG_HELP)],
)


def progress(items: Iterable[Item], *, label: str, total: int | None = None) -> "tqdm[Item]":
    """Return `items` behind a progress bar with the time left; no bar where standard error is no terminal."""
    return tqdm(items, desc=label, total=total, disable=None, dynamic_ncols=True, leave=False)


def progress_bar(*, label: str, total: int, done: int = 0) -> "tqdm[NoReturn]":
    """Return a progress bar to be moved by hand, of which a part is done already, otherwise as `progress`."""
    return tqdm(desc=label, total=total, initial=done, disable=None, dynamic_ncols=True, leave=False)


def say(message: str) -> None:
    """Print a line for the person at the terminal, clear of any progress bar."""
    tqdm.write(message, file=sys.stderr)


def reporting_errors(function: Callable[P, None]) -> Callable[P, None]:
    """Print a `PixelCAMError` as one message and exit with code 1; the option `--debug` prints its traceback before."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        debug = bool(kwargs.pop("debug", False))
        try:
            function(*args, **kwargs)
        except PixelCAMError as error:
            if debug:
                say(traceback.format_exc().rstrip())
            say(f"error: {error}")
            raise typer.Exit(code=1) from None

    # Typer reads a function's options from its signature.
    signature = inspect.signature(function)
    vars(wrapped)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), _DEBUG])
    return wrapped


def run(function: Callable[..., None]) -> None:
    """Run a stage's function as a command-line program, which ends with the program that started it."""
    end_with_parent()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=function.__doc__)(reporting_errors(function))
    app()
