"""The command `pixelcam`: for people, beside the stages that DVC runs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from pipeline.commands.export import export
from pipeline.commands.push_to_hub import push_to_hub
from pipeline.commands.view import view
from pipeline.metrics.protocols import ScoreProtocol
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptationMethod, Evidence, MapFormat
from pipeline.runtime.console import reporting_errors

app = typer.Typer(
    help="Look at what the pipeline made, and use it. The pipeline itself runs with 'make repro' or 'dvc repro'.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Row = tuple[str, ...]
SHOWN_SCORES: Final = {"pxap": "PxAP", "dice": "Dice", "accuracy": "accuracy"}
SHOWN_OF_SLIDES: Final = {"auroc": "AUROC", "froc": "FROC", "dice": "Dice"}


@app.command()
@reporting_errors
def predict(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files, any format that Pillow reads; or give --domain.")
    ] = None,
    model: Annotated[Path, typer.Option(help="A model's folder, or hf-hub:owner/name.")] = Path("models/pixelcam"),
    output: Annotated[Path, typer.Option(help="Folder for the maps.")] = Path("predictions"),
    params: Annotated[
        Path | None, typer.Option(help="Says how maps are read; else the model's own, or from one view.")
    ] = None,
    map_format: Annotated[
        MapFormat, typer.Option("--format", help="Maps as float32 .npy, as 16-bit .png, or in one Zarr group.")
    ] = MapFormat.NPY,
    maps_only: Annotated[
        bool, typer.Option("--maps-only", help="No overlays, and files of maps named as their images.")
    ] = False,
    map_of: Annotated[
        str | None, typer.Option("--class", help="Write the map of this class, of a model that has one for each.")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Predict the test images of this prepared domain.")] = None,
    prepared: Annotated[Path, typer.Option(help="The folder of prepared domains.")] = Path("data/prepared"),
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 8,
) -> None:
    """Say what each image shows and where: class probabilities, the map as a PNG overlay and as values."""
    from pipeline.commands.predict import predict as run  # noqa: PLC0415
    from pipeline.commands.predict import scored_files  # noqa: PLC0415
    from pipeline.data.manifest import read_domain  # noqa: PLC0415
    from pipeline.params.config import load_params  # noqa: PLC0415 - torch and others take seconds to load

    read_as = None if params is None else load_params(params)
    if bool(images) == (domain is not None):
        raise PixelCAMError("expected image files, or --domain and the name of a prepared domain: one of the two")
    if domain is not None:
        if read_as is None:
            raise PixelCAMError("--domain needs the params, which say where images lie; add --params params.yaml")
        images = scored_files(read_domain(domain, read_as, prepared / domain))
    predictions = run(
        images or [],
        model=model,
        output=output,
        batch_size=batch_size,
        params=read_as,
        map_format=map_format,
        maps_only=maps_only,
        map_of=map_of,
    )
    for prediction in predictions:
        classes = ", ".join(f"{name} {probability:.3f}" for name, probability in prediction.probabilities.items())
        written = [prediction.map] if prediction.overlay is None else [prediction.overlay, prediction.map]
        typer.echo(f"{prediction.image}: {classes}; {', '.join(str(path) for path in written)}")


@app.command()
@reporting_errors
def adapt(
    model: Annotated[Path, typer.Argument(help="A model's folder, or hf-hub:owner/name.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them; no labels are needed.")],
    output: Annotated[Path, typer.Option(help="Folder for the adapted model.")] = Path("adapted"),
    params: Annotated[Path, typer.Option(help="The params file that the model was trained with.")] = Path(
        "params.yaml"
    ),
    like: Annotated[
        str | None, typer.Option(help="Adapt as its section adaptation says for this domain; else for the first.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="Adapt as this file says instead, such as presets/adaptation.yaml.")
    ] = None,
    method: Annotated[AdaptationMethod | None, typer.Option(help="Another method than these say.")] = None,
    evidence: Annotated[Evidence | None, typer.Option(help="Label images by other evidence than these say.")] = None,
    background_class: Annotated[
        str | None, typer.Option(help="The model's class whose images hold no region of interest, if there is one.")
    ] = None,
) -> None:
    """Bring a model to images of another hospital, without labels; docs/adaptation.md."""
    from pipeline.commands.adapt import adapt as run  # noqa: PLC0415
    from pipeline.commands.adapt import choose_adaptation, describe_adaptation  # noqa: PLC0415
    from pipeline.params.config import load_params  # noqa: PLC0415

    read_as = load_params(params)
    run(
        model,
        images,
        output=output,
        adaptation=choose_adaptation(read_as, settings=settings, like=like, method=method, evidence=evidence),
        params=read_as,
        background_class=background_class,
    )
    typer.echo(f"{output}: {describe_adaptation(output)}")
    typer.echo(f"to use it: pixelcam predict IMAGE --model {output}")


@app.command()
@reporting_errors
def slide(
    slides: Annotated[list[Path], typer.Argument(help="Whole slides: SVS, NDPI, MRXS, DICOM, tiled TIFF, ...")],
    model: Annotated[Path, typer.Option(help="A model's folder, or hf-hub:owner/name.")] = Path("models/pixelcam"),
    params: Annotated[Path, typer.Option(help="The params file that the model was trained with.")] = Path(
        "params.yaml"
    ),
    output: Annotated[Path, typer.Option(help="Gets a folder for each slide.")] = Path("slides"),
    mpp: Annotated[
        float | None, typer.Option(min=0.05, max=32, help="Micrometres per pixel at which the model sees a slide.")
    ] = None,
    slide_mpp: Annotated[
        float | None, typer.Option(min=0.01, max=100, help="Of the slides, where their files do not say it.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Probability from which on there is a region.")
    ] = 0.5,
    scheduler: Annotated[
        str | None, typer.Option(envvar="PIXELCAM_SCHEDULER", help="A Dask scheduler, such as tcp://host:8786.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes here; one per core.")] = None,
) -> None:
    """Map whole slides: heatmap (OME-Zarr, OME-TIFF), regions for QuPath, overview and scores; docs/slides.md."""
    from pipeline.commands.slide import map_slides  # noqa: PLC0415
    from pipeline.params.config import load_params  # noqa: PLC0415

    mapped = map_slides(
        slides,
        model=model,
        params=load_params(params),
        output=output,
        mpp=mpp,
        slide_mpp=slide_mpp,
        threshold=threshold,
        scheduler=scheduler,
        workers=workers,
    )
    for folder, about in mapped:
        scores = about["scores"]
        typer.echo(
            f"{folder}: highest probability {scores['maximum']:.3f}, {scores['regions']} regions on "
            f"{scores['share_of_tissue']:.1%} of the tissue, the largest {scores['largest_region_mm']:.2f} mm"
        )


@app.command()
@reporting_errors
def labels(
    store: Annotated[Path, typer.Argument(help="A pseudo-label store.")] = Path("data/pseudo_labels.zarr"),
    sheet: Annotated[Path | None, typer.Option(help="PNG file for a contact sheet.")] = None,
    images: Annotated[Path | None, typer.Option(help="The folder that the image names start from.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Images on the sheet.")] = 8,
) -> None:
    """Say what a pseudo-label store holds and where it came from, check it, and draw a contact sheet."""
    from pipeline.pseudo_labels.store import PseudoLabelStore  # noqa: PLC0415
    from pipeline.report.overlays import describe_store, write_label_sheet  # noqa: PLC0415

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
def export_ome(
    store: Annotated[Path, typer.Argument(help="A pseudo-label store, such as data/pseudo_labels.zarr.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.")],
    prepared: Annotated[Path, typer.Option(help="The folder of prepared domains.")] = Path("data/prepared"),
    params: Annotated[Path, typer.Option(help="The params file, which says where images lie.")] = Path("params.yaml"),
    image: Annotated[list[str] | None, typer.Option(help="An image by its id; may be given several times.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="So many images, evenly over the store.")] = None,
) -> None:
    """Write images, pseudo-labels and CAMs of a store as OME-Zarr 0.5, which napari and others show; docs/store.md."""
    from pipeline.commands.ome_export import export_ome as run  # noqa: PLC0415
    from pipeline.commands.ome_export import spread  # noqa: PLC0415
    from pipeline.data.manifest import read_domain  # noqa: PLC0415
    from pipeline.params.config import load_params  # noqa: PLC0415
    from pipeline.pseudo_labels.store import REMEDY, PseudoLabelStore  # noqa: PLC0415

    if image and count is not None:
        raise PixelCAMError("expected --image or --count, got both; leave one out")
    opened = PseudoLabelStore(store)
    name = opened.attributes.get("domain")
    if not isinstance(name, str):
        raise PixelCAMError(f"{store}: lacks the attribute domain, which names the folder of its images; {REMEDY}")
    source = read_domain(name, load_params(params), prepared / name)
    chosen = image or (() if count is None else spread(opened.image_ids, count))
    exported = run(opened, output, source=source, image_ids=chosen)
    typer.echo(f"{len(exported)} of {len(opened)} images: {output}/**/*.ome.zarr; each CAM beside its image")
    first = output / exported[0]
    typer.echo(f"to look at one: napari {first}.ome.zarr {first}.cam.ome.zarr (with the plugin napari-ome-zarr)")


@app.command()
@reporting_errors
def doctor(params: Annotated[Path, typer.Option(help="The params file.")] = Path("params.yaml")) -> None:
    """Say whether this machine is ready, and what to do where it is not."""
    from pipeline.commands.doctor import examine  # noqa: PLC0415

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
    scores: Annotated[Path, typer.Option(help="The scores of evaluate_ood; adaptation.json lies beside them.")] = Path(
        "metrics/evaluation.json"
    ),
    report: Annotated[Path, typer.Option(help="The report.")] = Path("reports/index.html"),
) -> None:
    """Print the scores of the last run and where everything is."""
    rows, of_slides = _read_rows(scores, _score_rows, _slide_rows)
    adaptation = scores.with_name("adaptation.json")
    adapted = _read_rows(adaptation, _adapted_rows)[0] if adaptation.exists() else []
    table = Table("domain", "model", *(Column(title, justify="right") for title in SHOWN_SCORES.values()))
    for row in rows:
        table.add_row(*row)
    for row in adapted:
        table.add_row(*row)
    Console().print(table)
    if of_slides:
        table = Table("slides of", "model", *(Column(title, justify="right") for title in SHOWN_OF_SLIDES.values()))
        for row in of_slides:
            table.add_row(*row)
        Console().print(table)
    typer.echo(f"report:        {report.resolve().as_uri()}")
    typer.echo("pseudo-labels: data/pseudo_labels.zarr (pixelcam labels)")
    typer.echo("models:        models/teacher, models/pixelcam (pixelcam predict IMAGE)")


@app.command()
@reporting_errors
def score(
    maps: Annotated[
        Path, typer.Argument(help="Folder of .npy, .png or .tif maps, or a Zarr array or group with image_ids.")
    ],
    masks: Annotated[Path, typer.Argument(help="Folder of masks, with the same names but for their ends.")],
    ignore: Annotated[Path | None, typer.Option(help="Folder of masks of pixels that do not count.")] = None,
    threshold: Annotated[float | None, typer.Option(help="A threshold chosen on validation images.")] = None,
    map_size: Annotated[
        bool, typer.Option("--map-size", help="Bring masks to the size of the maps, not maps to that of the masks.")
    ] = False,
    protocol: Annotated[
        ScoreProtocol, typer.Option(help="Whose definitions: this project's, or the published evaluator's.")
    ] = ScoreProtocol.PIXELCAM,
    steps: Annotated[
        int | None, typer.Option(help="Thresholds of a published protocol: 1000, as if not given, or 100.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score anyone's maps against masks, as the pipeline scores its own: PxAP, Dice, IoU, boxes; docs/evaluation.md."""
    from pipeline.evaluation.map_scores import describe_scores, score_map_files  # noqa: PLC0415

    scores = score_map_files(
        maps, masks, ignore=ignore, threshold=threshold, at_map_size=map_size, protocol=protocol, steps=steps
    )
    if as_json:
        typer.echo(json.dumps(scores, indent=2, allow_nan=False))
        return
    table = Table("score", Column("value", justify="right"))
    for row in describe_scores(scores):
        table.add_row(*row)
    Console().print(table)


for command in (export, push_to_hub, view):
    app.command()(reporting_errors(command))


def _read_rows(path: Path, *makers: Callable[[dict[str, Any]], Iterator[Row]]) -> list[list[Row]]:
    """Read a file of scores and return the rows that each of some functions makes of it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [list(make(found)) for make in makers]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PixelCAMError(f"{path}: cannot be read as scores ({error}); run 'make repro' or 'dvc repro'") from error


def _adapted_rows(domains: dict[str, Any]) -> Iterator[Row]:
    """Yield the same of models that were adapted to a domain."""
    for domain, found in domains.items():
        how = f"{found['method']}, transductive" if found["transductive"] else found["method"]
        for model, scores in found["models"].items():
            yield domain, f"{model}, adapted ({how})", *(_as_text(scores["adapted"][key]) for key in SHOWN_SCORES)


def _score_rows(domains: dict[str, Any]) -> Iterator[Row]:
    """Yield domain, model and scores as text, in each domain the teacher first."""
    for domain, models in domains.items():
        for model in ("teacher", "pixelcam"):
            values = (models[model][key] for key in SHOWN_SCORES)
            yield domain, model, *map(_as_text, values)


def _slide_rows(domains: dict[str, Any]) -> Iterator[Row]:
    """Yield the same of whole slides, of domains that have any."""
    for domain, models in domains.items():
        for model in ("teacher", "pixelcam"):
            if "slides" in models[model]:
                yield domain, model, *(_as_text(models[model]["slides"][key]) for key in SHOWN_OF_SLIDES)


def _as_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
