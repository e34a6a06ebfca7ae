"""One of the processes that share the runs: it keeps a clone, runs what is drawn there, and looks at what is left."""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from checks.soak import base
from checks.soak.disturbing import await_moment, full_disk, send_signal
from checks.soak.draws import Disturbance, Draw, How, Values, draw_run
from checks.soak.inspecting import (
    LOCKED,
    NO_ROOM,
    TORN,
    is_said_by_dvc,
    names_its_cause,
    orphans,
    partial_files,
    sentences,
    speaks_of,
    states,
    traces,
)
from checks.soak.warm import Started, import_all, start, start_dvc
from pipeline.commands.doctor import examine

RESULTS: Final = "results.jsonl"
LONGEST: Final = 1800.0  # seconds after which a run is said to hang
GRACE: Final = 30.0  # seconds that what a killed dvc leaves behind has to end
LEAST: Final = 50_000  # bytes: what is printed has to fit into a file too
FAILED_IN_QUEUE: Final = "Failed to reproduce experiment"  # whose exit status is 0
# What the library that writes git's files for DVC prints on a full disk.
GIT_FILE: Final = re.compile(r"^Exception ignored in: <function _GitFile(?:.+\n)+?OSError.+$", re.MULTILINE)
DISK: Final = "disk"  # in a worker's folder: where a file system of its own is mounted
CLONE: Final = "disk/project"
REFERENCE: Final = "reference"  # the clone where nothing is disturbed
DVCS_OWN: Final = {  # ends, by what DVC says there, and where it may
    "DVC's lock": (LOCKED, {Disturbance.TWO_AT_ONCE}),
    "DVC's dvc.lock, half-written by the other": (TORN, {Disturbance.TWO_AT_ONCE}),
    "DVC without room": (NO_ROOM, {Disturbance.FULL_DISK, Disturbance.SMALL_FILES}),
}
PARTNER: Final = 1_000_000  # added to a run's number for the one beside it


@dataclass
class Outcome:
    """What came of a run: `end` in a word, and every fault that was found."""

    number: int
    how: str
    disturbance: str
    doctor: str
    end: str = ""
    said: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    stages: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    mended: list[str] = field(default_factory=list)
    compared: bool = False
    overrides: tuple[str, ...] = ()


class Worker:
    """A clone on a disk of its own, one beside it for undisturbed runs, and where outputs are written."""

    def __init__(self, folder: Path, *, seed: int, base_values: Values) -> None:
        self.seed = seed
        self.base = base_values
        self.params = speaks_of(base_values)
        self.disk, self.root, self.reference = folder / DISK, folder / CLONE, folder / REFERENCE
        self.logs = folder / "logs"
        self.first: dict[str, Any] = {}
        self.left: set[str] = set()
        self.mended: list[str] = []

    def set_up(self) -> None:
        """Run the first params, and copy the clone for runs that nothing disturbs."""
        self._must_run(["repro"], self.root, "first")
        base.commit(self.root, "the first run")
        shutil.copytree(self.root, self.reference, symlinks=True)
        self.first = outputs(self.root)

    def _must_run(self, arguments: list[str], root: Path, name: str) -> Started:
        run = self._start(arguments, root, name, {})
        if not run.wait(LONGEST) or run.status:
            raise RuntimeError(f"dvc {' '.join(arguments)} failed in {root}:\n{run.said()[-3000:]}")
        return run

    def _start(self, arguments: list[str], root: Path, name: str, settings: dict[str, str], **options: Any) -> Started:  # noqa: ANN401
        environment = base.environment_of(root) | settings
        output = self.logs / f"{name}.txt"
        return start_dvc(arguments, folder=root, output=output, environment=environment, **options)

    def run(self, number: int) -> Outcome:
        """Do what is drawn for a number, and say what came of it."""
        began = time.monotonic()
        draw = draw_run(self.seed, number, self.base)
        if draw.disturbance is Disturbance.FULL_DISK and not self.disk.is_mount():
            draw = replace(draw, disturbance=Disturbance.SMALL_FILES)
        outcome = Outcome(number, draw.how, draw.disturbance, self._doctor(draw), overrides=draw.overrides)
        self._restore(self.root)
        runs = self._perform(draw, outcome)
        outcome.stages = sum(run.said().count("Running stage '") for run in runs)
        self._inspect(draw, runs, outcome)
        if draw.disturbance is Disturbance.NONE:
            self._look_around(outcome, whole=runs[0].status == 0)
        else:
            self._again(draw, outcome)
        self._restore(self.root)
        outcome.mended, self.mended = self.mended, []
        outcome.seconds = time.monotonic() - began
        return outcome

    def _doctor(self, draw: Draw) -> str:
        """Return what `pixelcam doctor` says of the params."""
        path = self.root / ".drawn.partial"
        base.write_params(path, draw.values)

        def ask() -> int:
            found = next(finding for finding in examine(path) if finding.subject == "params")
            print(json.dumps(found.remedy))
            return int(bool(found.remedy))

        log = self.logs / f"{draw.number}-doctor.txt"
        run = start(ask, folder=self.root, output=log, environment=base.environment_of(self.root))
        run.wait(LONGEST)
        path.unlink()
        return {0: "valid", 1: "unfit"}.get(run.status or 0, f"ended with {run.status}")

    def _restore(self, root: Path) -> None:
        """Write the first params, having mended what DVC has left."""
        self.mended += base.mend(root)
        base.write_params(root / "params.yaml", self.base)

    def _arguments(self, draw: Draw, root: Path) -> list[list[str]]:
        """Return the commands of a run; `dvc repro` has its params written."""
        target = [draw.target] if draw.target else []
        if draw.how is How.REPRO:
            base.write_params(root / "params.yaml", draw.values)
            return [["repro", *target]]
        changes = [word for change in draw.overrides for word in ("-S", change)]
        if draw.how is How.TEMPORARY:
            return [["exp", "run", "--temp", *changes, *target]]
        if draw.how is How.QUEUE:
            return [["exp", "run", "--queue", *changes, *target], ["exp", "run", "--run-all"]]
        return [["exp", "run", *changes, *target]]

    def _perform(self, draw: Draw, outcome: Outcome) -> list[Started]:
        """Run it, disturbed as drawn; all has ended afterwards, or is told."""
        runs = []
        limit = max(draw.room, LEAST) if draw.disturbance is Disturbance.SMALL_FILES else None
        for step, arguments in enumerate(self._arguments(draw, self.root)):
            name = f"{draw.number}-{step}"
            run = self._start(arguments, self.root, name, draw.environment, cold=draw.cold, file_size=limit)
            runs.append(run)
            with self._disturbed(draw, run, outcome) as partner:
                runs += partner
                for one in (run, *partner):
                    self._see_to_its_end(one, outcome)
        outcome.cpu = sum(run.cpu for run in runs)
        return runs

    @contextmanager
    def _disturbed(self, draw: Draw, run: Started, outcome: Outcome) -> Iterator[list[Started]]:
        match draw.disturbance:
            case Disturbance.KILL:
                in_time = await_moment(draw, run, longest=LONGEST)
                outcome.disturbance = send_signal(draw, run) if in_time else "a signal that came too late"
                yield []
            case Disturbance.FULL_DISK:
                await_moment(draw, run, longest=LONGEST)
                with full_disk(self.root, draw.room):
                    yield []
            case Disturbance.TWO_AT_ONCE:
                other = draw_run(self.seed, draw.number + PARTNER, self.base)
                # A file of params cannot be two at once: the second has its own by -S.
                second = replace(other, how=How.EXPERIMENT if draw.how is How.REPRO else draw.how, environment={})
                await_moment(replace(draw, stages=draw.stages // 2), run, longest=LONGEST)
                arguments = self._arguments(second, self.root)[0]
                yield [self._start(arguments, self.root, f"{draw.number}-beside", {})]
            case _:
                yield []

    def _see_to_its_end(self, run: Started, outcome: Outcome) -> None:
        if not run.wait(LONGEST):
            outcome.faults.append(f"still runs after {LONGEST:.0f} s, see {run.output.name}")
            for number in (15, 9):
                _signal_group(run, number)
                if run.wait(10):
                    break

    def _inspect(self, draw: Draw, runs: list[Started], outcome: Outcome) -> None:
        """Look at how the runs ended, what they said, and which processes are left."""
        outcome.faults += _left_running(runs)
        ends = []
        for run in runs:
            said = run.said()
            outcome.faults += [f"{run.output.name}: {trace}" for trace in self._not_excused(draw, said)]
            ends.append(self._end_of(run, said, draw, outcome))
        outcome.end = next((end for end in ends if end != "through"), "through")

    def _not_excused(self, draw: Draw, said: str) -> list[str]:
        """Return the traces in what was printed, but for DVC's own where it has no room, or is interrupted."""
        if draw.disturbance not in (Disturbance.FULL_DISK, Disturbance.SMALL_FILES):
            return traces(said)
        found = traces(GIT_FILE.sub("", said))
        return [trace for trace in found if not trace.startswith("ERROR: unexpected error")]

    def _end_of(self, run: Started, said: str, draw: Draw, outcome: Outcome) -> str:
        if run.status == 0:
            if (
                outcome.doctor == "unfit"
                and "Running stage" in said
                and draw.disturbance is not Disturbance.TWO_AT_ONCE
            ):
                outcome.faults.append("a stage ran with params that doctor calls unfit")
            return "through"
        errors = sentences(said)
        outcome.said += [error[:400] for error in errors]
        for error in errors:
            if not names_its_cause(error, self.params):
                outcome.faults.append(f"{run.output.name}: names neither file nor parameter: {error[:200]}")
            if ".partial" in error:
                outcome.faults.append(f"{run.output.name}: names a temporary file: {error[:200]}")
        if errors:
            return "sentence" if outcome.doctor == "valid" else "refused"
        if draw.disturbance is Disturbance.KILL:
            return "killed"
        for end, (sayings, disturbances) in DVCS_OWN.items():
            if draw.disturbance in disturbances and is_said_by_dvc(said, sayings):
                return end
        lines = [line for line in said.splitlines() if line.strip()]
        outcome.faults.append(f"{run.output.name}: no sentence of ours, exit status {run.status}: {lines[-1:]}")
        return "no sentence"

    def _again(self, draw: Draw, outcome: Outcome) -> None:
        """Run the same again, undisturbed, and compare with the same elsewhere."""
        plain = replace(draw, disturbance=Disturbance.NONE, cold=False)
        if draw.how in (How.TEMPORARY, How.QUEUE):  # leave nothing in the folder to be compared
            plain = replace(plain, how=How.EXPERIMENT)
        self._restore(self.root)
        before = outcome.end
        runs = [
            self._start(arguments, self.root, f"{draw.number}-again-{step}", draw.environment)
            for step, arguments in enumerate(self._arguments(plain, self.root))
        ]
        for run in runs:
            self._see_to_its_end(run, outcome)
            outcome.cpu += run.cpu
        self._inspect(plain, runs, outcome)
        whole = runs[-1].status == 0
        outcome.end = f"{before}, then {outcome.end}"
        self._look_around(outcome, whole=whole)
        if whole and draw.compared:
            self._compare(draw, outcome)

    def _look_around(self, outcome: Outcome, *, whole: bool) -> None:
        """Look for what a run must not leave that came to its end; what others left was told then, or is theirs."""
        left = {f"a partial file: {name}" for name in partial_files(self.root)}
        left |= {f"a state that nothing takes up: {name}" for name in states(self.root)}
        outcome.faults += sorted(left - self.left) if whole else []
        self.left = left

    def _compare(self, draw: Draw, outcome: Outcome) -> None:
        """Compare outputs with those of the same params in the clone where nothing is ever disturbed."""
        plain = replace(draw, how=How.REPRO, disturbance=Disturbance.NONE)
        [arguments] = self._arguments(plain, self.reference)
        run = self._start(arguments, self.reference, f"{draw.number}-reference", draw.environment)
        self._see_to_its_end(run, outcome)
        outcome.cpu += run.cpu
        if run.status:
            outcome.faults.append(f"undisturbed it failed: {sentences(run.said())}")
        elif differing := differences(outputs(self.root), outputs(self.reference), stages_of(run.said())):
            if draw.disturbance is Disturbance.TWO_AT_ONCE:  # DVC checks the second's outputs out under the first
                outcome.end += ", with outputs of the other"
            else:
                outcome.faults.append(f"other bytes than undisturbed: {', '.join(differing)}")
        outcome.compared = True

    def finish(self) -> list[str]:
        """Run the first params again, by DVC's cache and then without it, and return the faults."""
        self._restore(self.root)
        self._must_run(["repro"], self.root, "last")
        status = self._must_run(["status"], self.root, "status").said()
        faults = [] if "up to date" in status else [f"dvc status is not clean: {status[-500:]}"]
        faults += [f"other bytes than first: {name}" for name in self._differences_from_first("last")]
        self._must_run(["repro", "--force"], self.root, "forced")
        faults += [f"other bytes than first, forced: {name}" for name in self._differences_from_first("forced")]
        return faults + [f"a partial file: {name}" for name in partial_files(self.root)]

    def _differences_from_first(self, name: str) -> list[str]:
        said = (self.logs / f"{name}.txt").read_text(encoding="utf-8")
        return differences(outputs(self.root), self.first, stages_of(said))


def outputs(root: Path) -> dict[str, Any]:
    """Return the hashes of all outputs, by stage, from DVC's list of them."""
    stages = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {stage: {out["path"]: out["md5"] for out in said.get("outs", [])} for stage, said in stages.items()}


def stages_of(said: str) -> set[str]:
    """Return the stages that DVC ran or found done: its list of outputs keeps those of other params too."""
    return set(re.findall(r"[Ss]tage '([^']+)'", said))


def differences(found: dict[str, Any], expected: dict[str, Any], stages: set[str]) -> list[str]:
    """Return the outputs of some stages whose hashes differ."""
    return [
        f"{stage}: {path}"
        for stage in sorted(stages)
        for path in expected[stage]
        if found.get(stage, {}).get(path) != expected[stage][path]
    ]


def _left_running(runs: list[Started]) -> list[str]:
    """Return the processes that outlive their program by more than they need to end."""
    until = time.monotonic() + GRACE
    while found := orphans([run.mark for run in runs], [run.process for run in runs]):
        if time.monotonic() > until:
            return [f"an orphan: {process}" for process in found]
        time.sleep(0.1)
    return []


def _signal_group(run: Started, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(run.process, number)


def main(folder: Path, seed: int, numbers: list[int], raw: Path) -> None:
    """Do runs and write what came of each as a line of JSON; the last line is of the end."""
    import_all()
    shipped = base.read_shipped(folder / "shipped.yaml")
    worker = Worker(folder, seed=seed, base_values=base.tiny_params(shipped, raw=raw))
    with (folder / RESULTS).open("w", encoding="utf-8") as file:
        worker.set_up()
        for number in numbers:
            file.write(json.dumps(asdict(worker.run(number))) + "\n")
            file.flush()
        file.write(json.dumps({"end_faults": worker.finish()}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4]))
