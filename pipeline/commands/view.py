"""Browse a run in the browser: a local page over its images, maps and labels."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pipeline.params.errors import PixelCAMError


def view(
    params: Annotated[Path, typer.Option(help="The params file of the run.")] = Path("params.yaml"),
    prepared: Annotated[Path, typer.Option(help="The folder of prepared domains.")] = Path("data/prepared"),
    models: Annotated[Path, typer.Option(help="The folder of models.")] = Path("models"),
    metrics: Annotated[Path, typer.Option(help="The folder of scores.")] = Path("metrics"),
    store: Annotated[Path, typer.Option(help="The pseudo-label store.")] = Path("data/pseudo_labels.zarr"),
    review: Annotated[Path, typer.Option(help="The table of images that you set aside.")] = Path("review.csv"),
    cache: Annotated[Path, typer.Option(help="A folder for thumbnails and maps; may be removed.")] = Path(".view"),
    slide_maps: Annotated[Path, typer.Option(help="What 'pixelcam slide' wrote, if anything.")] = Path("slides"),
    slide_files: Annotated[Path | None, typer.Option(help="The folder of the slides that were mapped.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on this machine; 0 takes a free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the browser too.")] = False,
) -> None:
    """Browse images, maps and labels of a run on a local page, and set images aside; docs/view.md."""
    try:
        from pipeline.viewer.server import serve  # noqa: PLC0415
        from pipeline.viewer.site import RunFiles, Site  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise PixelCAMError(f"{error.name} is not installed; pip install 'pixelcam[view]'") from error
    from pipeline.params.config import load_params  # noqa: PLC0415 - torch and others take seconds to load

    files = RunFiles(
        prepared=prepared,
        models=models,
        metrics=metrics,
        store=store,
        review=review,
        cache=cache,
        slide_maps=slide_maps,
        slide_files=slide_files,
    )

    def announce(address: str) -> None:
        typer.echo(f"{address}\nEnd it with Ctrl-C. Whoever has this address can see the run and set images aside.")
        if open_browser:
            webbrowser.open(address)

    serve(Site(load_params(params), files), port=port, announce=announce)
