"""Which lines of the mutated files each test runs, and how long it takes, while nothing is mutated."""

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from time import monotonic
from types import FrameType
from typing import Any

import pytest

from checks.mutants.modules import ROOT


@dataclass(frozen=True)
class Measured:
    """A test that passes.

    Attributes:
        seconds: that it takes, with what it needs of fixtures.
        lines: what it runs of each module.
    """

    seconds: float
    lines: dict[str, list[int]]

    def meets(self, module: str, lines: tuple[int, int]) -> bool:
        """Return whether it runs any of these lines."""
        first, last = lines
        return any(first <= line <= last for line in self.lines.get(module, ()))


class Meter:
    """A pytest plugin that measures; what a fixture of several tests runs counts for each of them."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._files = {str(ROOT / module): module for module in modules}
        self._hits: dict[str, set[int]] = {module: set() for module in modules}
        self._of_fixtures: dict[str, dict[str, set[int]]] = {}
        self._failed = False

    def measure(self, items: Sequence[pytest.Item]) -> dict[str, dict[str, Any]]:
        """Run tests and return what was measured of those that passed, by their ids."""
        items[0].config.pluginmanager.register(self)
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        found = {}
        for item, following in zip(items, [*items[1:], None], strict=True):
            for lines in self._hits.values():
                lines.clear()
            self._failed, start = False, monotonic()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            for name in _shared_fixtures(item):
                self._merge(self._of_fixtures.get(name, {}))
            if not self._failed:
                run = {module: sorted(hits) for module, hits in self._hits.items() if hits}
                found[item.nodeid] = asdict(Measured(round(monotonic() - start, 4), run))
        sys.settrace(None)
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """Note what fixtures ran that later tests find done."""
        result = yield
        for name in _shared_fixtures(item):
            self._of_fixtures.setdefault(name, {module: set(lines) for module, lines in self._hits.items()})
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Leave out what does not pass."""
        self._failed |= report.outcome != "passed"

    def _merge(self, lines: dict[str, set[int]]) -> None:
        for module, more in lines.items():
            self._hits[module] |= more

    def _enter(self, frame: FrameType, _event: str, _argument: object) -> Any:  # noqa: ANN401 - a trace function
        module = self._files.get(frame.f_code.co_filename)
        if module is None:
            return None
        hits = self._hits[module]
        hits.add(frame.f_lineno)

        def note(frame: FrameType, _event: str, _argument: object) -> Any:  # noqa: ANN401
            hits.add(frame.f_lineno)
            return note

        return note


def _shared_fixtures(item: pytest.Item) -> list[str]:
    """Return the fixtures of a test that it shares with others."""
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - pytest has no public name for it
    return [name for name, found in definitions.items() if found and found[-1].scope != "function"]
