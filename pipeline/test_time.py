"""What is done to a domain's images, or to the models, before the models are scored there: `evaluate_ood.test_time`.

Nothing here looks at a label. Stain normalization looks at each image alone, and at the source's training images. Batch
norm looks at all images of the domain that it is to be scored on.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from pipeline.choices import TestTime
from pipeline.config import Params
from pipeline.localization import EvaluationBatch, Localization, Localizer
from pipeline.models import as_localizer
from pipeline.pixelcam import PixelCAM
from pipeline.resizing import scale_images
from pipeline.scores import ModelName
from pipeline.stain_normalization import STAIN_METHODS, Images, StainNormalization, fit_stain_normalization
from pipeline.target_statistics import with_target_statistics
from pipeline.teacher import Teacher


class StainNormalizedLocalizer:
    """A localizer that is given images with the source's look alone.

    Args:
        localizer: what classifies and localizes.
        normalization: is applied to images as they come, before any view is taken of them.
    """

    def __init__(self, localizer: Localizer, normalization: StainNormalization) -> None:
        self.localizer = localizer
        self.normalization = normalization

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        """Classify and localize images, float32 (B, 3, H, W) in [0, 1]."""
        with torch.autocast("cpu", enabled=False):  # whatever precision the model is asked to have
            normalized = self.normalization(images)
        return self.localizer(normalized, class_idx)


class Adapter:
    """Makes localizers of models, each adapted to a domain the way that an option says.

    Args:
        option: what is done.
        params: all parameters; how maps are read.
        image_scale: how much larger images come than the models' input.
        source: gives the source's training images, at the size that images come in; asked by stain normalization alone,
            which is fitted here, once.

    Raises:
        PixelCAMError: stain normalization finds no image to be fitted on.
    """

    def __init__(self, option: TestTime, params: Params, *, image_scale: float, source: Callable[[], Images]) -> None:
        self.option = option
        self.params = params
        self.image_scale = image_scale
        self.normalization = fit_stain_normalization(option, source()) if option in STAIN_METHODS else None

    def __call__(
        self,
        models: Mapping[ModelName, Teacher | PixelCAM],
        batches: Iterable[EvaluationBatch],
        *,
        device: torch.device,
    ) -> dict[ModelName, Localizer]:
        """Return models ready to localize the images of a domain; the models stay as they are.

        Args:
            models: by name, on the device.
            batches: the images that are to be localized, iterated once for each model where batch norm measures them;
                nothing but the images is looked at.
            device: where the models are.

        Raises:
            PixelCAMError: batch norm is to measure a domain and a model has none.
        """
        if self.option is TestTime.BATCH_NORM:
            models = {
                name: with_target_statistics(model, self._at_input_size(batches, device), device)
                for name, model in models.items()
            }
        localizers = {
            name: as_localizer(model, self.params, image_scale=self.image_scale) for name, model in models.items()
        }
        if self.normalization is None:
            return localizers
        return {name: StainNormalizedLocalizer(each, self.normalization) for name, each in localizers.items()}

    def _at_input_size(self, batches: Iterable[EvaluationBatch], device: torch.device) -> Iterable[Tensor]:
        return (scale_images(batch.images.to(device), 1 / self.image_scale) for batch in batches)
