"""What stages and commands share towards the person at the terminal: errors as sentences, quiet progress bars."""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import Annotated, Final, NoReturn, ParamSpec, TypeVar

import typer
from tqdm import tqdm

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import explain_shortage
from pipeline.runtime.processes import (
    count,
    end_with_parent,
    first_to_fail,
    is_first,
    is_launched,
    is_orphan,
    leave,
    start_processes,
    wanted_processes,
)
from pipeline.runtime.recorded_params import recorded_as_read

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
    return tqdm(items, desc=label, total=total, disable=_no_bar(), dynamic_ncols=True, leave=False)


def progress_bar(*, label: str, total: int, done: int = 0) -> "tqdm[NoReturn]":
    """Return a progress bar to be moved by hand, of which a part is done already, otherwise as `progress`."""
    return tqdm(desc=label, total=total, initial=done, disable=_no_bar(), dynamic_ncols=True, leave=False)


def _no_bar() -> bool | None:
    """Return that there is no bar; None leaves it to tqdm, which looks for a terminal."""
    return None if is_first() else True


def say(message: str) -> None:
    """Print a line for the person at the terminal, clear of any progress bar; of several processes the first does."""
    if is_first():
        _write(message)


def _write(message: str) -> None:
    tqdm.write(message, file=sys.stderr)


def reporting_errors(function: Callable[P, None]) -> Callable[P, None]:
    """Print an error that a user can mend as one message and exit with code 1; others keep their traceback.

    Such are a `PixelCAMError`, and what the machine runs short of. The option `--debug` prints their traceback before.
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        debug = bool(kwargs.pop("debug", False))
        try:
            function(*args, **kwargs)
        except Exception as error:
            if not first_to_fail():
                raise typer.Exit(code=1) from None
            message = str(error) if isinstance(error, PixelCAMError) else explain_shortage(error, _name_of(function))
            if message is None:
                raise
            if debug:
                _write(traceback.format_exc().rstrip())
            _write(f"error: {message}")
            raise typer.Exit(code=1) from None

    # Typer reads a function's options from its signature.
    signature = inspect.signature(function)
    vars(wrapped)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), _DEBUG])
    return wrapped


def _name_of(function: Callable[..., None]) -> str:
    """Return the name of a command, or of the stage whose function this is."""
    source = inspect.unwrap(function).__code__.co_filename
    return Path(source).stem if function.__name__ == "main" else function.__name__


def run(function: Callable[..., None], *, parallel: bool = False) -> None:
    """Run a stage's function as a command-line program, which ends with the program that started it.

    Args:
        function: is given the command line's arguments.
        parallel: the function can be shared by several processes; they are started here if PIXELCAM_PROCESSES asks for
            them.
    """
    end_with_parent()
    if is_orphan():
        raise SystemExit(1)
    guarded = _guarding_params(function)
    program = _in_processes(guarded) if parallel else _alone(guarded)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=function.__doc__)(reporting_errors(program))
    app()


def _guarding_params(function: Callable[P, None]) -> Callable[P, None]:
    """Let a stage fail that is given a file of params, where DVC would record others than it has read."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        params = kwargs.get("params")
        with recorded_as_read(params) if isinstance(params, Path) else nullcontext():
            function(*args, **kwargs)

    return guarded


def _in_processes(function: Callable[P, None]) -> Callable[P, None]:
    """Let a stage start itself as several processes where they are wanted, and let these part in good order."""

    @wraps(function)
    def started(*args: P.args, **kwargs: P.kwargs) -> None:
        number = 1 if is_launched() else wanted_processes()
        if number == 1:
            function(*args, **kwargs)
            leave()
        elif status := start_processes(number, ["-m", f"stages.{_name_of(function)}", *sys.argv[1:]]):
            raise typer.Exit(code=status)

    return started


def _alone(function: Callable[P, None]) -> Callable[P, None]:
    """Refuse to run a stage several times beside itself."""

    @wraps(function)
    def started(*args: P.args, **kwargs: P.kwargs) -> None:
        if count() > 1:
            raise PixelCAMError(f"{_name_of(function)} runs in one process; start it without torchrun")
        function(*args, **kwargs)

    return started
