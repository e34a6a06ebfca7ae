"""Write a trained model as something that opens elsewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.params.vocabulary import ExportFormat


def export(
    model: Annotated[Path, typer.Argument(help="A model's folder, PixelCAM's or a teacher's.")],
    form: Annotated[
        ExportFormat, typer.Option("--format", help="One ONNX or PyTorch file, a BioImage package, or a web page.")
    ] = ExportFormat.ONNX,
    output: Annotated[Path | None, typer.Option(help="File, or folder of the page; by default below exports.")] = None,
    params: Annotated[Path, typer.Option(help="The params file, which says how maps are read.")] = Path("params.yaml"),
    single_view: Annotated[
        bool, typer.Option("--one-view", help="Read the map from the image as it is: faster, if the params say more.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="In whole numbers of 8 bits: a quarter of the size; its loss is measured.")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Of the map; fitted on validation images if not given.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="A real image to check on, instead of the model's domain; several times.")
    ] = None,
    prepared: Annotated[Path, typer.Option(help="The folder of prepared domains.")] = Path("data/prepared"),
    author: Annotated[
        list[str] | None, typer.Option(help="Of a BioImage package; several times. By default git's user.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="The model card of a BioImage package; by default the pipeline's.")
    ] = None,
) -> None:
    """Export a model as ONNX, PyTorch program, BioImage package or web page, and check it; docs/export.md."""
    from pipeline.export.exporting import Request, default_output, export_model  # noqa: PLC0415
    from pipeline.export.network import one_view  # noqa: PLC0415
    from pipeline.params.config import load_params  # noqa: PLC0415 - torch and others take seconds to load

    read_as = load_params(params)
    request = Request(
        model=model,
        params=one_view(read_as) if single_view else read_as,
        prepared=prepared,
        images=image or (),
        threshold=threshold,
        int8=int8,
        authors=author or (),
        card=card,
    )
    written = output or default_output(model, form)
    typer.echo(_describe(written, export_model(request, form, written)))


def _describe(output: Path, about: dict[str, Any]) -> str:
    check = about["check"]
    differences = ", ".join(f"{name} {off:.1g}" for name, off in check["largest_difference"].items())
    said = f"{output}: off by at most {differences} on {check['images']} images; threshold {about['threshold']:.3f}"
    if "quantization" not in about:
        return f"{said}\nto use it, open {output}/index.html in a browser" if output.suffix == "" else said
    scores = about["quantization"]["scores"]
    pxap = {kind: "unknown" if each["pxap"] is None else f"{100 * each['pxap']:.1f}" for kind, each in scores.items()}
    accuracy = {kind: f"{100 * each['accuracy']:.1f}" for kind, each in scores.items()}
    return (
        f"{said} (before int8)\nint8 on the test images of {about['quantization']['domain']}: PxAP {pxap['int8']} "
        f"(float32 {pxap['float32']}), accuracy {accuracy['int8']} (float32 {accuracy['float32']})"
    )
