"""Give mutants to the tests of their group: these are collected once, and each mutant is a fork of that process.

Most faults lie in functions, whose code is exchanged in the fork, wherever the function has been imported to; what is
run at import is imported again there. Asked are the tests that run the mutant's lines, first those that have killed
others of its function, then the fastest.
"""

import gc
import os
import resource
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType
from typing import Final, TextIO

import pytest

from checks.mutants.measuring import Measured
from checks.mutants.modules import ROOT
from checks.mutants.operators import Mutant, mutated

OPTIONS: Final = ("-q", "-s", "-x", "-p", "no:cacheprovider", "--rootdir", str(ROOT))
SECONDS: Final = 10.0  # that a test may take, and
TIMES: Final = 5.0  # so many times as long as without a fault
WAITING: Final = 12.0  # times that, where it does nothing or others use the processor
MEMORY: Final = 8 * 2**30  # bytes of a fork

Job = Callable[[TextIO], None]


def in_forks(jobs: Iterable[tuple[str, Job]], workers: int) -> Iterator[tuple[str, int, list[str]]]:
    """Run each job in a fork, several at a time; yield its name, its exit status and the lines that it wrote."""
    running: dict[int, tuple[str, tempfile.TemporaryDirectory[str]]] = {}
    waiting = iter(jobs)
    try:
        while True:
            while len(running) < workers and (job := next(waiting, None)):
                scratch = tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True)
                running[_fork(job[1], Path(scratch.name))] = (job[0], scratch)
            if not running:
                return
            pid, status = os.waitpid(-1, 0)
            if pid in running:
                name, scratch = running.pop(pid)
                _end_group(pid)
                yield name, os.waitstatus_to_exitcode(status), _read(Path(scratch.name, "said"))
                scratch.cleanup()
    finally:
        for pid in running:
            _end_group(pid)


def _read(said: Path) -> list[str]:
    return said.read_text(encoding="utf-8").splitlines() if said.exists() else []


def _fork(job: Job, scratch: Path) -> int:
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.setsid()
        os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = str(scratch)
        tempfile.tempdir = None
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        with Path(os.devnull).open("w") as nowhere, (scratch / "said").open("w", encoding="utf-8") as said:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            job(said)
        status = 0
    finally:
        os._exit(status)


def _end_group(pid: int) -> None:
    """End what a fork has started and left behind."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Watch:
    """A pytest plugin that writes the name of each test before it runs, ends what takes too long, and sees failures."""

    def __init__(self, said: TextIO, measured: dict[str, Measured]) -> None:
        self.said = said
        self.measured = measured
        self.failed = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Set an alarm, which ends the process."""
        print(item.nodeid, file=self.said, flush=True)
        seconds = SECONDS + TIMES * self.measured[item.nodeid].seconds
        signal.setitimer(signal.ITIMER_PROF, seconds)  # of the processor, which others may use too
        signal.setitimer(signal.ITIMER_REAL, WAITING * seconds)
        result = yield
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        self.failed |= report.failed

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what cannot even be imported."""
        self.failed |= report.failed


class Asking:
    """The tests of a group, collected in this process, and what is known of them."""

    def __init__(self, items: Sequence[pytest.Item], measured: dict[str, Measured]) -> None:
        self.items = {item.nodeid: item for item in items if item.nodeid in measured}
        self.measured = measured
        self.killers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._functions = defaultdict(list)
        for found in gc.get_objects():
            if type(found) is FunctionType:  # isinstance would wake what torch only has for old callers
                self._functions[found.__code__.co_filename].append(found)
        gc.freeze()

    def tests_for(self, mutant: Mutant) -> list[str]:
        """Return the tests to ask, in their order; of what is run at import all of files that use the module."""
        lines = (0, sys.maxsize) if mutant.at_import else mutant.lines
        met = [test for test in self.items if self.measured[test].meets(mutant.module, lines)]
        if mutant.at_import:
            files = {_file_of(test) for test in met or self.items}
            met = [test for test in self.items if _file_of(test) in files]
        killed = self.killers[mutant.module, mutant.function]
        return sorted(met, key=lambda test: (-killed[test], self.measured[test].seconds, test))

    def job(self, mutant: Mutant, tests: Sequence[str]) -> Job:
        """Return what a fork does with a mutant; its last line is `survived` if no test failed."""
        tree = mutated((ROOT / mutant.module).read_text(encoding="utf-8"), mutant.number)
        code = compile(tree, str(ROOT / mutant.module), "exec")

        def ask(said: TextIO) -> None:
            watch = Watch(said, self.measured)
            if mutant.at_import or not self._exchange(code):
                _forget_project()
                sys.meta_path.insert(0, _Finder(mutant.module, code))
                status = pytest.main([*OPTIONS, *tests], plugins=[watch])
                watch.failed |= status != pytest.ExitCode.OK
            else:
                items = [self.items[test] for test in tests]
                items[0].config.pluginmanager.register(watch)
                for item, following in zip(items, [*items[1:], None], strict=True):
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                    if watch.failed:
                        return
            if not watch.failed:
                print("survived", file=said)

        return ask

    def _exchange(self, module: CodeType) -> bool:
        """Give the functions of a file their code in `module`; return whether any has another now."""
        codes = {(code.co_qualname, code.co_firstlineno): code for code in _codes_in(module)}
        changed = False
        for function in self._functions[module.co_filename]:
            former = function.__code__
            code = codes.get((former.co_qualname, former.co_firstlineno), former)
            if code != former:
                if code.co_freevars != former.co_freevars:
                    return False
                function.__code__ = code
                changed = True
        return changed


def _file_of(test: str) -> str:
    return test.split("::", maxsplit=1)[0]


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes_in(constant)


def _forget_project() -> None:
    """Let all that lies in the project be imported anew."""
    rooms = tuple(f"{ROOT / room}{os.sep}" for room in ("pipeline", "stages", "tests"))
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(rooms):
            del sys.modules[name]


class _Finder:
    """An import hook that gives one module other code."""

    def __init__(self, module: str, code: CodeType) -> None:
        self._name = module.removesuffix(".py").replace("/", ".")
        self._code = code

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return the module's own spec, with a loader that knows better."""
        if name != self._name:
            return None
        loader = _Loader(name, self._code.co_filename)
        loader.code = self._code
        return spec_from_file_location(name, self._code.co_filename, loader=loader)


class _Loader(SourceFileLoader):
    code: CodeType

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - given by Python
        return self.code
