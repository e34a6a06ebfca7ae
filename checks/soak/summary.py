"""A soak in a table: what was done, what came of it, and every fault."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def summarize(lines: Sequence[Mapping[str, Any]], *, seconds: float) -> str:
    """Return the table of all runs, as Markdown, and the faults below it."""
    runs = [line for line in lines if "number" in line]
    ends = [line["end_faults"] for line in lines if "end_faults" in line]
    table = ["| disturbed by | runs | ended |", "|---|---|---|"]
    for disturbance in sorted({_kind(run) for run in runs}):
        of_kind = [run for run in runs if _kind(run) == disturbance]
        table.append(f"| {disturbance} | {len(of_kind)} | {_counted(run['end'] for run in of_kind)} |")
    faults = [f"- {run['number']}: {fault}" for run in runs for fault in run["faults"]]
    faults += [f"- at the end: {fault}" for end in ends for fault in end]
    return "\n".join(
        [
            "",
            *table,
            "",
            f"{len(runs)} runs ({_counted(run['how'] for run in runs)}), {sum(run['stages'] for run in runs)} stages, "
            f"{seconds / 60:.0f} min, {sum(run['cpu'] for run in runs) / 60:.0f} min of a processor",
            f"params that doctor calls: {_counted(run['doctor'] for run in runs)}",
            f"compared with an undisturbed run elsewhere: {sum(run['compared'] for run in runs)}",
            "left by DVC, and mended as pixelcam doctor advises: "
            + _counted(one for run in runs for one in run["mended"]),
            f"workers that came to their end: {len(ends)}",
            f"faults: {len(faults)}",
            *faults,
        ]
    )


def _kind(run: Mapping[str, Any]) -> str:
    return str(run["disturbance"])


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())
