"""What came of each mutant, kept from run to run, and the table of it."""

import json
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from checks.mutants.modules import ROOT, Group, digest_of, digest_of_test
from checks.mutants.operators import Mutant

FOLDER: Final = ROOT / ".mutants"
RESULTS: Final = FOLDER / "results.jsonl"
EQUIVALENT: Final = Path(__file__).parent / "equivalent.toml"


@dataclass(frozen=True)
class Result:
    """What came of a mutant.

    Attributes:
        key: the mutant's.
        killed: whether a test failed, came to no end, or ended with the process.
        by: the test that did; empty if none.
        status: 0, or what its process ended with instead of an answer; less than 0 is a signal.
        asked: how many tests were asked at most.
        source: digest of the mutated file.
        tests: digest of the test that killed it; if none did, of all that were asked.
    """

    key: str
    killed: bool
    by: str
    status: int
    asked: int
    source: str
    tests: str

    def holds(self, mutant: Mutant, group: Group) -> bool:
        """Return whether all is as it was: a killed mutant stays so as long as its killer does."""
        return self.source == digest_of(mutant.module) and self.tests == _digest(self.by, group)


def make_result(mutant: Mutant, group: Group, *, killer: str, status: int, asked: int) -> Result:
    """Return the result of a mutant; without a killer it survived."""
    source = digest_of(mutant.module)
    return Result(mutant.key, bool(killer), killer, status, asked, source, _digest(killer, group))


def _digest(killer: str, group: Group) -> str:
    return digest_of_test(killer) if killer else digest_of(*group.test_files())


def read_results() -> dict[str, Result]:
    """Return the latest result of each mutant, by its key."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    results = [Result(**json.loads(line)) for line in lines if line.endswith("}")]
    return {result.key: result for result in results}


def keep(result: Result) -> None:
    """Add a result to the file; what is half-written when the process is killed is no line."""
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write("\n" * _is_cut() + json.dumps(asdict(result)) + "\n")


def _is_cut() -> bool:
    return RESULTS.exists() and RESULTS.read_bytes()[-1:] not in (b"", b"\n")


def read_equivalents() -> dict[tuple[str, str, str], str]:
    """Return why mutants are equivalent, by module, function and text."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]
    return {
        (entry["module"], entry["function"], text): entry["reason"] for entry in listed for text in entry["mutants"]
    }


def is_equivalent(mutant: Mutant, listed: Iterable[tuple[str, str, str]]) -> bool:
    """Return whether a mutant is on the list, by what it says."""
    return (mutant.module, mutant.function, mutant.text) in listed


def table(mutants: dict[str, list[Mutant]], results: dict[str, Result]) -> Iterator[str]:
    """Yield the lines of the table: a module each, and the sum."""
    listed = read_equivalents()
    yield "| module | mutants | killed | equivalent | survived | killed of what is not equivalent |"
    yield "|---|---|---|---|---|---|"
    sums = [0, 0, 0, 0]
    for module, found in mutants.items():
        run = [mutant for mutant in found if mutant.key in results]
        killed = sum(results[mutant.key].killed for mutant in run)
        alike = sum(is_equivalent(mutant, listed) and not results[mutant.key].killed for mutant in run)
        counts = [len(run), killed, alike, len(run) - killed - alike]
        sums = [total + more for total, more in zip(sums, counts, strict=True)]
        yield _line(f"`{module}`", counts)
    yield _line("all", sums)


def _line(name: str, counts: list[int]) -> str:
    mutants, killed, equivalent, _ = counts
    share = f"{killed / (mutants - equivalent):.1%}" if mutants > equivalent else "-"
    return "| " + " | ".join([name, *map(str, counts), share]) + " |"
