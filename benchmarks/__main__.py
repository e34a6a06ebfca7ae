"""Run benchmarks, print their table, and write what they found with the machine it was found on."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

import typer

from benchmarks import (
    adaptation,
    cam_reading,
    domain_size,
    dvc_floor,
    gradient_maps,
    image_store,
    joint_step,
    label_store,
    pooled_pixels,
    slides,
    waiting_for_data,
)
from benchmarks.machine import describe_machine
from benchmarks.outcome import Outcome, Skipped
from benchmarks.settings import Settings
from benchmarks.table import line_of, title
from pipeline.runtime.devices import make_fabric

Measure = Callable[[Settings], Iterator[Outcome | Skipped]]
HERE: Final = Path(__file__).parent
ROWS: Final[dict[str, Measure]] = {
    "joint_step": joint_step.measure,
    "adaptation": adaptation.measure,
    "cam_reading": cam_reading.measure,
    "gradient_maps": gradient_maps.measure,
    "pooled_pixels": pooled_pixels.measure,
    "label_store": label_store.measure,
    "image_store": image_store.measure,
    "waiting_for_data": waiting_for_data.measure,
    "dvc_floor": dvc_floor.measure,
    "domain_size": domain_size.measure,
    "slides": slides.measure,
}


def main(
    rows: Annotated[list[str] | None, typer.Argument(help="which; all if none is named")] = None,
    quick: Annotated[bool, typer.Option(help="tiny sizes: shows that it works and nothing of speed")] = False,
    glas: Annotated[Path | None, typer.Option(help="GlaS as published; else files of its size are generated")] = None,
    output: Annotated[Path, typer.Option(help="where to write the results")] = HERE / "results.json",
) -> None:
    """Measure the rows, print a line for each figure and write all of them."""
    chosen = rows or list(ROWS)
    if unknown := sorted(set(chosen) - set(ROWS)):
        raise typer.BadParameter(f"there is no row {unknown[0]}; there are {', '.join(ROWS)}")
    machine, start = describe_machine(fabric := make_fabric()), perf_counter()
    found: list[Outcome | Skipped] = []
    typer.echo(title())
    for row in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            settings = Settings(fabric=fabric, scratch=Path(scratch), quick=quick, glas=glas, project=HERE.parent)
            for outcome in ROWS[row](settings):
                typer.echo(line_of(outcome))
                found.append(outcome)
    machine |= {"seconds_in_all": round(perf_counter() - start), "quick": quick}
    results = {"machine": machine, "results": [outcome.as_json() for outcome in found]}
    output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
