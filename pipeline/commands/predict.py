"""Use a trained model on image files: class probabilities, and the map as a picture and as values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cams.views import PLAIN
from pipeline.data.image_store import check_unchanged, squash
from pipeline.data.images import read_image
from pipeline.data.manifest import PreparedDomain, Split
from pipeline.data.maps import Localization, Localizer, resize_map, scale_images
from pipeline.evaluation.map_files import WriteMap, writing_maps
from pipeline.models.files import weights_sha256
from pipeline.models.loading import as_localizer, load_model, map_params
from pipeline.models.pixelcam import PixelCAM, PixelCAMLocalizer
from pipeline.models.teacher import Teacher
from pipeline.params.config import MapParams, Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import MapFormat, Weights
from pipeline.report.overlays import heat_overlay, write_picture
from pipeline.runtime.console import progress
from pipeline.runtime.devices import make_fabric


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one image file.

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
) -> Iterator[Prediction]:
    """Predict image after image and write each one's map to the folder `output`.

    Args:
        images: image files of different names.
        model: a model's folder, PixelCAM's or a teacher's.
        output: where `NAME_map.npy` or `NAME_map.png` and `NAME_overlay.png` go, or the group `heatmaps.zarr`.
        batch_size: images per forward pass.
        params: say how maps are read (`pixelcam_map`, for a teacher `cam`) and which weights (`evaluate_ood.weights`).
            None reads PixelCAM's map once, at the model's input size.
        map_format: the form of maps.
        maps_only: write no overlays, and name the files of maps as their images are named.

    Raises:
        PixelCAMError: an image is missing or cannot be read, two have one name, the model is missing or damaged, or it
            is a teacher and there are no params. Names are checked before any work begins.
    """
    _check_names(images)
    reader = _MapReader(model, params)
    ending = "" if maps_only else "_map"
    names = [image.name for image in images]
    with writing_maps(output, map_format, image_ids=names, ending=ending, attributes=reader.describe()) as write:
        for start in range(0, len(images), batch_size):
            overlays = None if maps_only else output
            yield from _predict_batch(images[start : start + batch_size], reader, write, overlays=overlays)


def scored_files(domain: PreparedDomain) -> list[Path]:
    """Return the test images of a domain, the ones that evaluation scores.

    Raises:
        PixelCAMError: there is none, or one is missing or has changed since it was prepared.
    """
    rows = domain.manifest.of_split(Split.TEST).rows
    if not rows:
        raise PixelCAMError(f"domain '{domain.name}' has no test image; give some the split 'test'")
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


class _MapReader:
    """A model of either kind, on its device, with the way that its map is read."""

    def __init__(self, folder: Path, params: Params | None) -> None:
        self._folder = folder
        self._weights = Weights.SELECTED if params is None else params.evaluate_ood.weights
        self._model, self._info = load_model(folder, self._weights)
        self._fabric = make_fabric()
        self._views: MapParams = PLAIN if params is None else map_params(self._model, params)
        self._scale = self._views.image_scale
        self._localizer = self._as_localizer(self._model.to(self._fabric.device), params)
        self.classes = self._info.classes

    def _as_localizer(self, model: Teacher | PixelCAM, params: Params | None) -> Localizer:
        if params is not None:
            return as_localizer(model, params, image_scale=self._scale)
        if isinstance(model, PixelCAM):
            return PixelCAMLocalizer(model)
        raise PixelCAMError(
            f"{self._folder}: holds a teacher, whose CAM is read as the section cam of the params says; "
            "add --params params.yaml, or give the folder of a PixelCAM model"
        )

    def describe(self) -> dict[str, Any]:
        """Return where the maps come from, as JSON values."""
        return {
            "classes": list(self.classes),
            "encoder": self._info.encoder.name,
            "map_of": "pixelcam" if isinstance(self._model, PixelCAM) else "teacher, for the predicted class",
            "model_sha256": weights_sha256(self._folder),
            "read": self._views.model_dump(mode="json"),
            "weights": self._weights.value,
        }

    def read(self, images: Sequence[NDArray[np.uint8]]) -> Localization:
        """Localize images, uint8 (H_i, W_i, 3), a teacher's for the class that it predicts."""
        size = round(self._scale * self._info.encoder.input_size)
        squares = torch.from_numpy(np.stack([squash(image, size) for image in images]))
        batch = squares.permute(0, 3, 1, 2).float().div_(255).to(self._fabric.device)
        with self._fabric.autocast():
            return self._localizer(batch, self._predicted_class(batch))

    def _predicted_class(self, batch: Tensor) -> Tensor:
        """Return the class whose map is wanted, int64 (B,); PixelCAM's map knows no class."""
        if isinstance(self._model, PixelCAM):
            return torch.zeros(len(batch), dtype=torch.int64, device=self._fabric.device)
        with torch.no_grad():
            logits: Tensor = self._model(scale_images(batch, 1 / self._scale)).image_logits
        return logits.argmax(dim=1)


def _predict_batch(
    paths: Sequence[Path], reader: _MapReader, write: WriteMap, *, overlays: Path | None
) -> Iterator[Prediction]:
    images = [read_image(path) for path in paths]
    localization = reader.read(images)
    probabilities = localization.image_logits.softmax(dim=1).tolist()
    for index, (path, image) in enumerate(zip(paths, images, strict=True)):
        heat = resize_map(localization.maps[index : index + 1], image.shape[:2])[0].clamp(0, 1).cpu().numpy()
        overlay = None if overlays is None else overlays / f"{path.stem}_overlay.png"
        if overlay is not None:
            write_picture(overlay, heat_overlay(image, heat=heat))
        said = dict(zip(reader.classes, probabilities[index], strict=True))
        yield Prediction(path, said, overlay, write(path.name, heat, {"probabilities": said}))
