"""Use a trained model on image files: class probabilities, and the map as a picture and as values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.images import read_image
from pipeline.data.manifest import PreparedDomain, Split
from pipeline.data.pixels import check_unchanged
from pipeline.evaluation.map_files import writing_maps
from pipeline.evaluation.prediction import load_model
from pipeline.export.hub import find_model, params_for
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError, shown
from pipeline.params.vocabulary import MapFormat
from pipeline.report.overlays import heat_overlay, write_picture
from pipeline.runtime.console import progress


@dataclass(frozen=True, eq=False)
class PredictedFile:
    """What the model says about one image file, and where that is written.

    Attributes:
        image: the file.
        probabilities: by class name, in the model's order; they add up to 1.
        overlay: PNG file, the map in colours over the image; None where maps alone were asked for.
        map: NumPy file, float32 (H, W) in [0, 1] at the image's size; or 16-bit PNG or an array of a Zarr group, the
            same as round(65535 p). PixelCAM's is the probability of foreground, a teacher's the CAM for the class that
            it predicts.
    """

    image: Path
    probabilities: dict[str, float]
    overlay: Path | None
    map: Path


def predict(
    images: Sequence[Path],
    *,
    model: Path,
    output: Path,
    batch_size: int,
    params: Params | None = None,
    map_format: MapFormat = MapFormat.NPY,
    maps_only: bool = False,
    map_of: str | None = None,
) -> Iterator[PredictedFile]:
    """Predict image after image and write each one's map to the folder `output`.

    Args:
        images: image files of different names.
        model: a model's folder, PixelCAM's or a teacher's; or `hf-hub:owner/name`.
        output: where `NAME_map.npy` or `NAME_map.png` and `NAME_overlay.png` go, or the group `heatmaps.zarr`.
        batch_size: images per forward pass.
        params: say how maps are read (`pixelcam_map`, for a teacher `cam`) and which weights (the first of
            `evaluate_ood.weights`). None: as those say that came with the model; of a folder without any PixelCAM's map
            is read once, at the model's input size.
        map_format: the form of maps.
        maps_only: write no overlays, and name the files of maps as their images are named.
        map_of: the class whose own map is written, of a model that tells classes apart by pixels; None: that of
            foreground.

    Raises:
        PixelCAMError: an image is missing or cannot be read, two have one name, the model is missing or damaged, it has
            no map of the class, or it is a teacher and there are no params. Names are checked before any work begins.
    """
    _check_names(images)
    folder = find_model(str(model))
    predictor = load_model(folder, params=params or params_for(folder, None))
    attributes = predictor.describe()
    if map_of is not None:
        if map_of not in predictor.classes_with_map:
            known = ", ".join(predictor.classes_with_map) or "no class"
            raise PixelCAMError(
                f"{model}: expected a class that has a map of its own, as has {known}, got {shown(map_of)}; name one "
                "that has, or train the model with model.pixel_classes: image_classes"
            )
        attributes["map_of"] = f"pixelcam, {map_of}"
    ending = "" if maps_only else "_map"
    names = [image.name for image in images]
    with writing_maps(output, map_format, image_ids=names, ending=ending, attributes=attributes) as write:
        for start in range(0, len(images), batch_size):
            paths = images[start : start + batch_size]
            pixels = [read_image(path) for path in paths]
            for path, image, said in zip(paths, pixels, predictor.predict_batch(pixels), strict=True):
                heat = said.map if map_of is None else said.class_maps[map_of]
                overlay = None if maps_only else output / f"{path.stem}_overlay.png"
                if overlay is not None:
                    write_picture(overlay, heat_overlay(image, heat=heat))
                file = write(path.name, heat, {"probabilities": said.probabilities})
                yield PredictedFile(path, said.probabilities, overlay, file)


def scored_files(domain: PreparedDomain) -> list[Path]:
    """Return the test images of a domain, the ones that evaluation scores.

    Raises:
        PixelCAMError: there is none, or one is missing or has changed since it was prepared.
    """
    rows = domain.manifest.of_split(Split.TEST).rows
    if not rows:
        raise PixelCAMError(f"domain '{domain.name}' has no test image; give some the split 'test'")
    if any(row.slide for row in rows):
        raise PixelCAMError(f"domain '{domain.name}' holds slides, no image files; give them to 'pixelcam slide'")
    paths = [domain.manifest.root / row.image for row in rows]
    for path, row in zip(progress(paths, label="checking images"), rows, strict=True):
        if not path.is_file():
            raise PixelCAMError(f"{path}: is missing; restore it, or mend the root of the domain '{domain.name}'")
        check_unchanged(path, row.image_sha256)
    return paths


def _check_names(images: Sequence[Path]) -> None:
    stems: dict[str, Path] = {}
    for image in images:
        if not image.is_file():
            raise PixelCAMError(f"{image}: is no file; give image files, such as folder/*.png")
        other = stems.setdefault(image.stem, image)
        if other != image:
            raise PixelCAMError(f"{image}: would write the same files as {other}; predict them into different folders")
