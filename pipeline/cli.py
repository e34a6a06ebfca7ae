"""The command `pixelcam`: for people, beside the stages that DVC runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from pipeline.console import reporting_errors
from pipeline.errors import PixelCAMError

app = typer.Typer(
    help="Look at what the pipeline made, and use it. The pipeline itself runs with 'make repro' or 'dvc repro'.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


SHOWN_SCORES: Final = {"pxap": "PxAP", "dice": "Dice", "accuracy": "accuracy"}


@app.command()
@reporting_errors
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, any format that Pillow reads.")],
    model: Annotated[Path, typer.Option(help="A PixelCAM model's folder.")] = Path("models/pixelcam"),
    output: Annotated[Path, typer.Option(help="Folder for the maps.")] = Path("predictions"),
) -> None:
    """Say what each image shows and where: class probabilities, the map as a PNG overlay and as a NumPy array."""
    from pipeline.predicting import predict as run  # noqa: PLC0415 - torch takes seconds to load

    for prediction in run(images, model=model, output=output):
        classes = ", ".join(f"{name} {probability:.3f}" for name, probability in prediction.probabilities.items())
        typer.echo(f"{prediction.image}: {classes}; {prediction.overlay}, {prediction.map}")


@app.command()
@reporting_errors
def labels(
    store: Annotated[Path, typer.Argument(help="A pseudo-label store.")] = Path("data/pseudo_labels.zarr"),
    sheet: Annotated[Path | None, typer.Option(help="PNG file for a contact sheet.")] = None,
    images: Annotated[Path | None, typer.Option(help="The folder that the image names start from.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Images on the sheet.")] = 8,
) -> None:
    """Say what a pseudo-label store holds and where it came from, check it, and draw a contact sheet."""
    from pipeline.label_sheet import describe_store, write_label_sheet  # noqa: PLC0415
    from pipeline.store import PseudoLabelStore  # noqa: PLC0415

    opened = PseudoLabelStore(store)
    table = Table(Column(), Column(overflow="fold"), show_header=False, box=None)
    for name, value in describe_store(opened):
        table.add_row(name, value)
    Console().print(table)
    opened.verify()
    typer.echo("every label agrees with its count")
    if sheet is not None:
        write_label_sheet(opened, sheet, count=count, images=images)
        typer.echo(f"contact sheet: {sheet}")
        if images is None:
            domain = opened.attributes.get("domain", "DOMAIN")
            typer.echo(f"to see the images beneath, add --images with their root, such as data/prepared/{domain}")


@app.command()
@reporting_errors
def doctor(params: Annotated[Path, typer.Option(help="The params file.")] = Path("params.yaml")) -> None:
    """Say whether this machine is ready, and what to do where it is not."""
    from pipeline.doctor import examine  # noqa: PLC0415

    findings = list(examine(params))
    for finding in findings:
        typer.echo(f"{'MEND' if finding.remedy else 'ok  '}  {finding.subject}: {finding.state}")
        if finding.remedy:
            typer.echo(indent(finding.remedy, " " * 6))
    if any(finding.remedy for finding in findings):
        raise PixelCAMError("this machine is not ready; the lines marked MEND say what to do")


@app.command()
@reporting_errors
def results(
    scores: Annotated[Path, typer.Option(help="The scores of evaluate_ood.")] = Path("metrics/evaluation.json"),
    report: Annotated[Path, typer.Option(help="The report.")] = Path("reports/index.html"),
) -> None:
    """Print the scores of the last run and where everything is."""
    try:
        rows = list(_score_rows(json.loads(scores.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PixelCAMError(f"{scores}: cannot be read as scores ({error}); run 'make repro' or 'dvc repro'") from error
    table = Table("domain", "model", *(Column(title, justify="right") for title in SHOWN_SCORES.values()))
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    typer.echo(f"report:        {report.resolve().as_uri()}")
    typer.echo("pseudo-labels: data/pseudo_labels.zarr (pixelcam labels)")
    typer.echo("models:        models/teacher, models/pixelcam (pixelcam predict IMAGE)")


@app.command()
@reporting_errors
def score(
    maps: Annotated[Path, typer.Argument(help="Folder of .npy, .png or .tif maps, or a Zarr array with image_ids.")],
    masks: Annotated[Path, typer.Argument(help="Folder of masks, with the same names but for their ends.")],
    ignore: Annotated[Path | None, typer.Option(help="Folder of masks of pixels that do not count.")] = None,
    threshold: Annotated[float | None, typer.Option(help="A threshold chosen on validation images.")] = None,
    map_size: Annotated[
        bool, typer.Option("--map-size", help="Bring masks to the size of the maps, not maps to that of the masks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score anyone's maps against masks, as the pipeline scores its own: PxAP, Dice, IoU, boxes; docs/evaluation.md."""
    from pipeline.scoring import describe_scores, score_maps  # noqa: PLC0415

    scores = score_maps(maps, masks, ignore=ignore, threshold=threshold, at_map_size=map_size)
    if as_json:
        typer.echo(json.dumps(scores, indent=2, allow_nan=False))
        return
    table = Table("score", Column("value", justify="right"))
    for row in describe_scores(scores):
        table.add_row(*row)
    Console().print(table)


def _score_rows(domains: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield domain, model and scores as text, in each domain the teacher first."""
    for domain, models in domains.items():
        for model in ("teacher", "pixelcam"):
            values = (models[model][key] for key in SHOWN_SCORES)
            yield domain, model, *("-" if value is None else f"{value:.3f}" for value in values)


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
