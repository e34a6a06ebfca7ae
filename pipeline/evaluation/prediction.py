"""A trained model asked about anyone's images: class probabilities, and a map of each image's own size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cams.views import PLAIN
from pipeline.data.image_store import square_batch
from pipeline.data.images import ImageLike, as_pixels, several
from pipeline.data.maps import Localization, Localizer, resize_map, scale_images
from pipeline.models.files import weights_sha256
from pipeline.models.loading import as_localizer, load_net, map_params
from pipeline.models.pixelcam import PixelCAM, PixelCAMLocalizer
from pipeline.models.teacher import Teacher
from pipeline.params.config import MapParams, Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import PixelClasses, Weights
from pipeline.runtime.devices import make_fabric

BATCH_SIZE: Final = 8  # images at a time, where nobody says otherwise


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one image.

    Attributes:
        probabilities: by class name, in the model's order; they add up to 1.
        map: float32 (H, W) in [0, 1] at the image's size, higher is foreground. PixelCAM's is the probability of
            foreground, a teacher's the CAM for the class that it predicts.
        class_maps: likewise a map for each class, by name; their sum is `map`. Empty of a model that tells no classes
            apart by pixels.
    """

    probabilities: dict[str, float]
    map: NDArray[np.float32]
    class_maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def class_name(self) -> str:
        """The class that is most probable."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


class Predictor:
    """A model of either kind, on its device, with the way that its map is read; made by `load_model`.

    Attributes:
        classes: their names, in the order of `class_idx`.
        classes_with_map: those that have a map of their own: all, or none.
    """

    def __init__(self, folder: Path, params: Params | None) -> None:
        self._folder = folder
        self._weights = Weights.SELECTED if params is None else params.evaluate_ood.weights[0]
        self._net, self._info = load_net(folder, self._weights)
        self._fabric = make_fabric()
        self._views: MapParams = PLAIN if params is None else map_params(self._net, params)
        self._scale = self._views.image_scale
        self._localizer = self._as_localizer(self._net.to(self._fabric.device), params)
        self.classes = self._info.classes
        self.classes_with_map = self.classes if self._info.pixel_classes is PixelClasses.IMAGE_CLASSES else ()

    def predict(self, images: Sequence[ImageLike], *, batch_size: int = BATCH_SIZE) -> list[Prediction]:
        """Return what the model says about each image.

        Args:
            images: files, or pixels uint8 (H_i, W_i, 3), of any sizes.
            batch_size: images at a time.

        Raises:
            PixelCAMError: a file cannot be read, or pixels are of another type or shape.
        """
        starts = range(0, len(several(images)), batch_size)
        batches = ([as_pixels(image) for image in images[start : start + batch_size]] for start in starts)
        return [prediction for batch in batches for prediction in self.predict_batch(batch)]

    def predict_batch(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[Prediction]:
        """Yield what the model says about each of some images, uint8 (H_i, W_i, 3), from one forward pass."""
        localization = self._localize(images)
        probabilities = localization.image_logits.softmax(dim=1).tolist()
        for index, image in enumerate(images):
            heat = _resized(localization.maps[index : index + 1], image)[0]
            class_maps: dict[str, NDArray[np.float32]] = {}
            if localization.class_maps is not None:
                of_classes = _resized(localization.class_maps[index : index + 1], image)[0]
                class_maps = dict(zip(self.classes, of_classes, strict=True))
            yield Prediction(dict(zip(self.classes, probabilities[index], strict=True)), heat, class_maps)

    def look_for(
        self, windows: NDArray[np.uint8], side: int, *, background_class_idx: int | None, enlarge: int = 1
    ) -> NDArray[np.float32]:
        """Return where windows of a slide show a lesion, as probabilities, float32 (B, side, side).

        PixelCAM's map says so itself. A teacher's CAM is stretched to [0, 1] whatever it shows: it is taken for the
        class other than the background that is most probable, and multiplied by the probability that the window shows
        no background.

        Args:
            windows: uint8 (B, H, W, 3).
            side: of the maps in pixels.
            background_class_idx: the class without lesions, if there is one.
            enlarge: how many times as large as its input the model is to take them.

        Raises:
            PixelCAMError: it does not take them so large.
        """
        try:
            found = self._localize(list(windows), without=background_class_idx, enlarge=enlarge)
        except (AssertionError, RuntimeError) as error:
            if enlarge == 1:
                raise
            raise PixelCAMError(
                f"slides.window: the encoder takes no images {enlarge} times as large as its input ({error}); use 1"
            ) from error
        maps = resize_map(found.maps.float(), (side, side)).clamp(0, 1)
        if background_class_idx is not None and not isinstance(self._net, PixelCAM):
            maps = maps * (1 - found.image_logits.float().softmax(dim=1)[:, background_class_idx, None, None])
        return maps.cpu().numpy()

    @property
    def input_size(self) -> int:
        """Side in pixels of the square that the model is given."""
        return self._info.encoder.input_size

    @property
    def domain(self) -> str:
        """The domain that the model learned from."""
        return self._info.domain

    def describe(self) -> dict[str, Any]:
        """Return where the maps come from, as JSON values."""
        return {
            "classes": list(self.classes),
            "encoder": self._info.encoder.name,
            "map_of": "pixelcam" if isinstance(self._net, PixelCAM) else "teacher, for the predicted class",
            "model_sha256": weights_sha256(self._folder),
            "read": self._views.model_dump(mode="json"),
            "weights": self._weights.value,
        }

    def _as_localizer(self, net: Teacher | PixelCAM, params: Params | None) -> Localizer:
        if params is not None:
            return as_localizer(net, params, image_scale=self._scale)
        if isinstance(net, PixelCAM):
            return PixelCAMLocalizer(net)
        raise PixelCAMError(
            f"{self._folder}: holds a teacher, whose CAM is read as the section cam of the params says; "
            "add --params params.yaml, or give the folder of a PixelCAM model (in Python: params=load_params(...))"
        )

    def _localize(
        self, images: Sequence[NDArray[np.uint8]], *, without: int | None = None, enlarge: int = 1
    ) -> Localization:
        size = round(self._scale * self._info.encoder.input_size) * enlarge
        batch = square_batch(images, size).to(self._fabric.device)
        with self._fabric.autocast():
            return self._localizer(batch, self._predicted_class(batch, without=without))

    def _predicted_class(self, batch: Tensor, *, without: int | None) -> Tensor:
        """Return the class whose map is wanted, int64 (B,), never `without`; PixelCAM's map knows no class."""
        if isinstance(self._net, PixelCAM):
            return torch.zeros(len(batch), dtype=torch.int64, device=self._fabric.device)
        with torch.no_grad():
            logits: Tensor = self._net(scale_images(batch, 1 / self._scale)).image_logits
        if without is not None:
            logits[:, without] = -torch.inf
        return logits.argmax(dim=1)


def _resized(maps: Tensor, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return maps (1, ..., h, w) at the size of an image."""
    return resize_map(maps, image.shape[:2]).clamp(0, 1).cpu().numpy()


def load_model(folder: Path | str, *, params: Params | None = None) -> Predictor:
    """Load a trained model, PixelCAM's or a teacher's, onto this machine's device.

    Args:
        folder: of the model, such as `models/pixelcam`.
        params: say how maps are read (`pixelcam_map`, for a teacher `cam`) and which weights (the first of
            `evaluate_ood.weights`). None reads PixelCAM's map once, at the model's input size.

    Raises:
        PixelCAMError: a file is missing or damaged, or it is a teacher and there are no params.
    """
    return Predictor(Path(folder), params)
