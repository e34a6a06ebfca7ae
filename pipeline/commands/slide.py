"""Use a trained model on whole slides: a heatmap, regions for QuPath, an overview and scores of each."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.evaluation.slide_maps import SlideJob, run_slide
from pipeline.export.hub import find_model
from pipeline.models.files import read_info
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.types import TilesDomain
from pipeline.runtime.cluster import side_by_side


def map_slides(
    slides: Sequence[Path],
    *,
    model: Path,
    params: Params,
    output: Path,
    mpp: float | None,
    slide_mpp: float | None,
    threshold: float,
    scheduler: str | None,
    workers: int | None,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Map slide after slide and yield each one's folder and what its `slide.json` says.

    Args:
        slides: files of different names.
        model: a model's folder, or `hf-hub:owner/name`.
        params: how maps are read and slides; and, where the model learned from slides, at which mpp.
        output: gets a folder for each slide.
        mpp: micrometres per pixel at which the model is to see a slide; None where the params say it.
        slide_mpp: of the slides, where their files do not say it.
        threshold: of regions.
        scheduler: address of a Dask scheduler.
        workers: processes on this machine; None takes one for each core, or a single one where there is a GPU.

    Raises:
        PixelCAMError: a slide cannot be read, two have one name, or nobody says the mpp.
    """
    _check_names(slides)
    folder = find_model(str(model))
    mpp, size, background_class = _window(folder, params, mpp)
    jobs = [
        SlideJob(
            slide=slide.absolute(),
            name=slide.stem,
            slide_mpp=slide_mpp,
            model=folder.absolute(),
            params=params,
            mpp=mpp,
            size=size,
            threshold=threshold,
            background_class=background_class,
            lesions=None,
            output=output.absolute(),
            scratch=output.absolute() / ".windows",
        )
        for slide in slides
    ]
    if workers is None and torch.cuda.is_available():
        workers = 1
    found = side_by_side(run_slide, jobs, label="slides", scheduler=scheduler, workers=workers)
    for slide, about in zip(slides, found, strict=True):
        yield output / slide.stem, about
    scratch = output / ".windows"
    if scratch.is_dir() and not any(scratch.iterdir()):
        scratch.rmdir()


def _window(model: Path, params: Params, mpp: float | None) -> tuple[float, int, str | None]:
    """Return the mpp and the side of a window, as the model learned to see, and its class without lesions."""
    info = read_info(model)
    learned_from = params.domains.get(info.domain)
    background_class = None if learned_from is None else learned_from.background_class
    if isinstance(learned_from, TilesDomain):
        return mpp or learned_from.mpp, learned_from.tile_size, background_class
    if mpp is None:
        raise PixelCAMError(
            f"{model}: learned from '{info.domain}', whose images do not say how many micrometres a pixel has; give "
            "--mpp: that of your images, times their side in pixels over model.input_size"
        )
    return mpp, info.encoder.input_size, background_class


def _check_names(slides: Sequence[Path]) -> None:
    stems: dict[str, Path] = {}
    for slide in slides:
        if not slide.exists():
            raise PixelCAMError(f"{slide}: there is no such slide; mend the path")
        other = stems.setdefault(slide.stem, slide)
        if other != slide:
            raise PixelCAMError(f"{slide}: would write the same folder as {other}; write them into different folders")
