"""Run the mutants that have no result yet: `make mutants`, or `python -m checks.mutants GROUP ...`."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

os.environ["OMP_NUM_THREADS"] = "1"  # as in the suite; read when torch is imported

import pytest
import typer
from tqdm import tqdm

from checks.mutants.measuring import Measured, Meter
from checks.mutants.modules import GROUPS, ROOT, Group, digest_of, is_sampled
from checks.mutants.operators import Mutant, find_mutants
from checks.mutants.results import (
    FOLDER,
    Result,
    is_equivalent,
    keep,
    make_result,
    read_equivalents,
    read_results,
    table,
)
from checks.mutants.running import OPTIONS, Asking, Job, in_forks


def sampled(group: Group, share: float | None) -> dict[str, list[Mutant]]:
    """Return the mutants of each module of a group, or a share of them; without one the group's own."""
    return {
        module: [
            mutant
            for mutant in find_mutants((ROOT / module).read_text(encoding="utf-8"), module)
            if is_sampled(mutant.key, group.share if share is None else share)
        ]
        for module in group.modules()
    }


class Host:
    """A pytest plugin that, once tests are collected, gives mutants to them instead of running them."""

    def __init__(self, group: Group, mutants: list[Mutant], workers: int) -> None:
        self.group = group
        self.mutants = mutants
        self.workers = workers

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Measure the tests, then run the mutants."""
        measured = self._measured(session.items)
        asking = Asking(session.items, measured)
        chosen = {mutant.key: mutant for mutant in self.mutants}
        tests: dict[str, list[str]] = {}

        def jobs() -> Iterator[tuple[str, Job]]:
            for key, mutant in chosen.items():
                tests[key] = asking.tests_for(mutant)
                if tests[key]:
                    yield key, asking.job(mutant, tests[key])
                else:
                    keep(make_result(mutant, self.group, killer="", status=0, asked=0))

        with tqdm(desc=self.group.name, total=len(chosen), disable=None, dynamic_ncols=True, leave=False) as bar:
            for key, status, said in in_forks(jobs(), self.workers):
                killer = "" if said[-1:] == ["survived"] else said[-1] if said else tests[key][0]
                if killer:
                    asking.killers[chosen[key].module, chosen[key].function][killer] += 1
                keep(make_result(chosen[key], self.group, killer=killer, status=status, asked=len(tests[key])))
                bar.update()
        return True

    def _measured(self, items: list[pytest.Item]) -> dict[str, Measured]:
        """Return what is known of each test, and measure those whose file or whose group's sources have changed."""
        by_file: dict[str, list[pytest.Item]] = {}
        for item in items:
            by_file.setdefault(item.nodeid.split("::")[0], []).append(item)
        modules = self.group.modules()
        kept = {file: FOLDER / f"{Path(file).stem}-{digest_of(file, *modules)}.json" for file in by_file}

        def job(file: str) -> Job:
            return lambda said: json.dump(Meter(modules).measure(by_file[file]), said)

        missing = [(file, job(file)) for file, path in kept.items() if not path.exists()]
        for file, status, said in in_forks(missing, self.workers):
            if status:
                raise SystemExit(f"error: {file} does not run; try pytest {file}")
            kept[file].write_text("\n".join(said), encoding="utf-8")
        known: dict[str, dict[str, Any]] = {}
        for path in kept.values():
            known |= json.loads(path.read_text(encoding="utf-8"))
        return {test: Measured(**values) for test, values in known.items()}


def run_group(group: Group, mutants: list[Mutant], workers: int) -> None:
    """Run mutants in a process of their own, which collects the group's tests."""
    if pid := os.fork():
        if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise typer.Exit(code=abs(status))
        return
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        status = pytest.main([*OPTIONS, *group.test_files()], plugins=[Host(group, mutants, workers)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(f"error: the tests of {group.name} cannot be collected", file=sys.stderr)
    os._exit(int(status))


def main(
    groups: Annotated[list[str] | None, typer.Argument(help="which; all if none is named")] = None,
    workers: Annotated[int, typer.Option(help="how many mutants at a time")] = 2,
    share: Annotated[float | None, typer.Option(help="of all mutants; 1 for all")] = None,
    show: Annotated[bool, typer.Option("--table", help="print the table of what is known, and run nothing")] = False,
    survivors: Annotated[bool, typer.Option(help="print what survived and is not listed, and run nothing")] = False,
) -> None:
    """Run each mutant against the tests of its group, until one fails."""
    chosen = [group for group in GROUPS if not groups or group.name in groups]
    if unknown := sorted(set(groups or ()) - {group.name for group in GROUPS}):
        raise typer.BadParameter(f"there is no group {unknown[0]}; there are {', '.join(each.name for each in GROUPS)}")
    FOLDER.mkdir(exist_ok=True)
    results = read_results()
    held: dict[str, Result] = {}
    everything: dict[str, list[Mutant]] = {}
    for group in chosen:
        found = sampled(group, share)
        everything |= found
        mutants = [mutant for each in found.values() for mutant in each]
        held |= {m.key: results[m.key] for m in mutants if m.key in results and results[m.key].holds(m, group)}
        missing = [mutant for mutant in mutants if mutant.key not in held]
        if missing and not (show or survivors):
            run_group(group, missing, workers)
    if not (show or survivors):
        held = read_results()
    if survivors:
        _print_survivors(everything, held)
    else:
        print("\n".join(table(everything, held)))


def _print_survivors(mutants: dict[str, list[Mutant]], results: dict[str, Result]) -> None:
    listed = read_equivalents()
    for mutant in (each for found in mutants.values() for each in found):
        result = results.get(mutant.key)
        if result is not None and not result.killed and not is_equivalent(mutant, listed):
            print(f"{mutant.module}:{mutant.lines[0]} {mutant.function}, {result.asked} tests")
            print(f"- {mutant.before}\n+ {mutant.after}\n")


if __name__ == "__main__":
    typer.run(main)
