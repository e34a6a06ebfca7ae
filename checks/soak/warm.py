"""Starts `dvc` and its stages by forking a process that has imported everything, since importing is most of a tiny run.

Who is whose child, which signals reach whom and which locks are held is as where a person starts them.
"""

import gc
import os
import resource
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from pipeline.runtime.console import run
from pipeline.runtime.processes import end_with_parent

ALONE: Final = ("stages.prepare", "stages.model_cards", "stages.report")
DVC: Final = (
    "dvc.cli",
    "dvc.commands.experiments.run",
    "dvc.commands.repro",
    "dvc.repo.experiments",
    "dvc.repo.reproduce",
    "dvc.stage.run",
)
MEMORY: Final = 8 * 2**30  # bytes that a program may ask for, so that a soak cannot starve the machine
MARK: Final = "PIXELCAM_SOAK"
FAILED: Final = 99  # exit status of what should never fail: the fork itself


@dataclass
class Started:
    """A program that runs: its process is the leader of a session of its own.

    Attributes:
        process: its id, which is that of its session and its group too.
        output: the file of all that it prints.
        mark: what stands in its environment, and in that of all that it starts anew.
        status: its exit status, negative for a signal; None while it runs.
        cpu: seconds that it and its children took of a processor.
    """

    process: int
    output: Path
    mark: str
    status: int | None = None
    cpu: float = 0.0

    def poll(self) -> bool:
        """Tell whether it has ended."""
        if self.status is None:
            process, status, usage = os.wait4(self.process, os.WNOHANG)
            if process:
                self.status = os.waitstatus_to_exitcode(status)
                self.cpu = usage.ru_utime + usage.ru_stime
        return self.status is not None

    def wait(self, seconds: float) -> bool:
        """Wait for its end, so long at most; tell whether it came."""
        until = time.monotonic() + seconds
        while not self.poll():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def said(self) -> str:
        """Return what it has printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")


def import_all() -> None:
    """Import what `dvc` and the stages need, once for all runs."""
    for name in (*DVC, *(f"stages.{path.stem}" for path in Path("stages").glob("*.py") if path.stem != "__init__")):
        import_module(name)


def start_dvc(  # the settings of a program are many
    arguments: Sequence[str],
    *,
    folder: Path,
    output: Path,
    environment: Mapping[str, str],
    cold: bool = False,
    file_size: int | None = None,
) -> Started:
    """Start `dvc` in a folder.

    Args:
        arguments: what follows `dvc`.
        folder: where.
        output: the file for what it prints.
        environment: of it and its stages.
        cold: start it as a person does.
        file_size: bytes that a stage may write into a file.
    """

    def work() -> int:
        if cold:
            os.execve(sys.executable, [sys.executable, "-m", "dvc", *arguments], os.environ)
        vars(import_module("dvc.stage.run"))["subprocess"] = SimpleNamespace(
            Popen=lambda command, **options: _Stage(command, file_size=file_size, **options)
        )
        return int(import_module("dvc.cli").main(list(arguments)))

    return start(work, folder=folder, output=output, environment=environment)


def start(work: Callable[[], int], *, folder: Path, output: Path, environment: Mapping[str, str]) -> Started:
    """Start a function in a process of its own, as the leader of a session."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(b"")
    _flush()
    if process := os.fork():
        return Started(process, output, mark)
    status = FAILED
    try:
        os.setsid()
        end_with_parent()
        _open_output(output)
        _become(folder, {**environment, MARK: mark})
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        status = work()
    except SystemExit as end:
        status = _status_of(end)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _flush()
        os._exit(status)


class _Stage:
    """What stands in the place of `subprocess.Popen` in a `dvc` that was forked: the stage is forked from it too."""

    def __init__(self, command: Sequence[str], *, file_size: int | None, **options: Any) -> None:  # noqa: ANN401
        words = shlex.split(command[-1])
        if words[:2] != ["python", "-m"] or words[2] not in sys.modules:
            raise ValueError(f"is no stage that was imported: {command[-1]}")
        self.returncode: int | None = None
        _flush()
        self._process = os.fork()
        if not self._process:
            _run_stage(words[2:], file_size=file_size, cwd=options["cwd"], env=options["env"])

    def communicate(self) -> None:
        """Wait for its end."""
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])


def _run_stage(words: list[str], *, file_size: int | None, cwd: str, env: Mapping[str, str]) -> None:
    """Be a stage, in a process just forked from `dvc`, and end."""
    status = FAILED
    try:
        gc.freeze()  # what is dvc's is never cleared away here, so that files of it stay closed
        os.closerange(3, 4096)  # its locks are not inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
        _become(Path(cwd), env)
        sys.argv = words
        run(sys.modules[words[0]].main, parallel=words[0] not in ALONE)
        status = 0
    except SystemExit as end:
        status = _status_of(end)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        _flush()
        os._exit(status)


def _status_of(end: SystemExit) -> int:
    return end.code if isinstance(end.code, int) else int(end.code is not None)


def _become(folder: Path, environment: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def _open_output(output: Path) -> None:
    """Let standard output and error go to a file, and nothing come in."""
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for new, old in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(new, old)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
