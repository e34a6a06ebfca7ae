"""Mutants of a small file by hand, and of a small project: what a test notices, what none does, and going on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checks.mutants.operators import find_mutants, mutated

ROOT = Path(__file__).parents[2]
SOURCE = '''"""A docstring."""
LIMIT: "int" = 3


@decorated(size=1)
def chosen(values: list[int], at: int = 0) -> bool:
    """Say nothing."""
    say(f"{at + 1}", "shown")
    for value in values[at:]:
        if value < LIMIT and not value == 0:
            raise ValueError("wrong" + str(value - 1))
    total = max(values) ** 2
    total -= 1
    return total
'''
EXPECTED = {
    ("", "LIMIT: 'int' = 3 -> LIMIT: 'int' = 4"),
    ("", "def chosen(values: list[int], at: int=0) -> bool: -> def chosen(values: list[int], at: int=1) -> bool:"),
    ("chosen", "for value in values[at:]: -> for value in values[:]:"),
    ("chosen", "if value < LIMIT and (not value == 0): -> if False:"),
    ("chosen", "if value < LIMIT and (not value == 0): -> if True:"),
    ("chosen", "if value < LIMIT and (not value == 0): -> if not value == 0:"),
    ("chosen", "if value < LIMIT and (not value == 0): -> if value < LIMIT:"),
    ("chosen", "if value < LIMIT and (not value == 0): -> if value < LIMIT or not value == 0:"),
    ("chosen", "if value < LIMIT and (not value == 0): -> if value <= LIMIT and (not value == 0):"),
    ("chosen", "if value < LIMIT and (not value == 0): -> if value < LIMIT and value == 0:"),
    ("chosen", "if value < LIMIT and (not value == 0): -> if value < LIMIT and (not value != 0):"),
    ("chosen", "if value < LIMIT and (not value == 0): -> if value < LIMIT and (not value == 1):"),
    ("chosen", "total = max(values) ** 2 -> total = min(values) ** 2"),
    ("chosen", "total = max(values) ** 2 -> total = max(values) * 2"),
    ("chosen", "total = max(values) ** 2 -> total = max(values) ** 3"),
    ("chosen", "total -= 1 -> pass"),
    ("chosen", "total -= 1 -> total += 1"),
    ("chosen", "total -= 1 -> total -= 2"),
    ("chosen", "return total -> return None"),
}


def test_the_mutants_of_a_file_by_hand() -> None:
    found = find_mutants(SOURCE, "a.py")
    assert {(mutant.function, mutant.text) for mutant in found} == EXPECTED
    assert len(found) == len({mutant.key for mutant in found}) == len(EXPECTED)
    assert {mutant.text.split()[0] for mutant in found if mutant.at_import} == {"LIMIT:", "def"}


def test_a_mutant_is_the_file_with_one_fault() -> None:
    source = "def both(a, b):\n    return a and b\n"
    (wanted,) = (each for each in find_mutants(source, "a.py") if each.after == "return a or b")
    assert wanted.lines == (2, 2)
    found: dict[str, Any] = {}
    exec(compile(mutated(source, wanted.number), "a.py", "exec"), found)
    assert found["both"](False, True) is True


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A module with a constant and a function, and a test of both."""
    for name in ("pipeline/__init__.py", "pipeline/cams/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "pipeline/cams/limits.py").write_text(
        "LIMIT = 3\n\n\ndef is_above(value):\n    return value > LIMIT\n", encoding="utf-8"
    )
    (tmp_path / "tests/cams").mkdir(parents=True)
    (tmp_path / "tests/cams/test_limits.py").write_text(
        "from pipeline.cams.limits import is_above\n\n\n"
        "def test_limit():\n    assert is_above(4)\n    assert not is_above(2)\n",
        encoding="utf-8",
    )
    return tmp_path


def run(project: Path, *options: str) -> str:
    command = [sys.executable, "-m", "checks.mutants", "cams", "--share", "1", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p no:hypothesispytest -p no:xdist"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_test_notices_is_killed_and_a_second_start_goes_on(project: Path) -> None:
    # Of the limit + 1, the comparison turned to >= and None returned, the test notices the first and the last.
    assert "| `pipeline/cams/limits.py` | 3 | 2 | 0 | 1 | 66.7% |" in run(project)
    assert run(project, "--survivors").splitlines()[1:] == ["- return value > LIMIT", "+ return value >= LIMIT", ""]
    more = project / "tests/cams/test_more.py"
    more.write_text(
        "from pipeline.cams.limits import is_above\n\n\ndef test_limit_itself():\n    assert not is_above(3)\n",
        encoding="utf-8",
    )
    assert "| all | 3 | 3 | 0 | 0 | 100.0% |" in run(project)
    results = (project / ".mutants/results.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(results) == 4, "what is killed stays so, and the one that survived is run again"
