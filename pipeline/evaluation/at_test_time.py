"""What is done to a domain's images, or to the models, before the models are scored there: `evaluate_ood.test_time`.

Macenko: the two stains of an image are found in its optical densities, and their strengths are put on the reference's
stains ("A method for normalizing histology slides for quantitative analysis", ISBI 2009). Reinhard: mean and standard
deviation of each channel of Lab become the reference's ("Color transfer between images", 2001).

Nothing here looks at a label. Stain normalization looks at each image alone, and at the source's training images. Batch
norm looks at all images of the domain that it is to be scored on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.adaptation.target_statistics import with_target_statistics
from pipeline.data.maps import EvaluationBatch, Localization, Localizer, scale_images
from pipeline.metrics.scores import ModelName
from pipeline.models.loading import as_localizer
from pipeline.models.pixelcam import PixelCAM
from pipeline.models.teacher import Teacher
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import TestTime

STAIN_METHODS: Final = (TestTime.MACENKO, TestTime.REINHARD)
LIGHT: Final = 240  # the value of light through clear glass, as usual for Macenko's method
TRANSPARENT: Final = 0.15  # optical densities below are no tissue; likewise
# Macenko takes the 99th percentile of all pixels for the strength of a stain. Of less than 1 % tissue that is glass.
LEAST_TISSUE: Final = 0.02
LEAST_ANGLE: Final = 5.0  # degrees between the two stains; below, they are one stain and noise
MOST_BEYOND: Final = 0.05  # share of tissue that is no mixture of the two stains
LEAST_DEVIATION: Final = 0.1  # of a channel of Lab, in its units of which one can just be seen; below, it is rounding


class Images(Protocol):
    """Images by number, such as a `SquareReader`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> npt.NDArray[np.uint8]: ...


@dataclass(frozen=True, eq=False)
class StainNormalization:
    """Brings images to the look of one reference image.

    Attributes:
        method: macenko or reinhard.
        reference: number of the reference image among those it was chosen from.
        fitted: torchstain's normalizer, which holds what is to be known of the reference image.
    """

    method: TestTime
    reference: int
    fitted: Any

    def __call__(self, images: Tensor) -> Tensor:
        """Return images, float32 (B, 3, H, W) in [0, 1], with the reference's look, in steps of 1/255.

        An image that the method has nothing to go by in comes back as it is: too little tissue, one stain alone, or
        without colour. It is computed on the CPU, alike for every device.
        """
        normalized = images.cpu().clone()
        for number, image in enumerate(_to_bytes(normalized)):
            if _fit(self.method, image) is not None:
                normalized[number] = self._normalize(image).float().div_(255).clamp_(0, 1)
        return normalized.to(images.device)

    def _normalize(self, image: Tensor) -> Tensor:
        """Return an image, uint8 (3, H, W), with the reference's look, whole numbers up to 255."""
        found: Tensor
        if self.method is TestTime.REINHARD:
            found = self.fitted.normalize(image)
        else:
            found, _, _ = self.fitted.normalize(image, Io=LIGHT, beta=TRANSPARENT, stains=False)
        return found.permute(2, 0, 1)


def fit_stain_normalization(method: TestTime, images: Images) -> StainNormalization:
    """Fit a normalization on the one image whose mean colour is nearest to the mean colour of all.

    Images that the method has nothing to go by in are passed over; of two equally near the first counts.

    Args:
        method: macenko or reinhard.
        images: training images of the source, all of one size; each is read once, and the nearest again.

    Raises:
        PixelCAMError: no image can be fitted on.
    """
    colours = [images[number].reshape(-1, 3).mean(axis=0, dtype=np.float64) for number in range(len(images))]
    distances = np.linalg.norm(np.array(colours) - np.mean(colours, axis=0), axis=1) if colours else np.empty(0)
    for number in np.argsort(distances, kind="stable").tolist():
        fitted = _fit(method, torch.tensor(images[number]).permute(2, 0, 1))
        if fitted is not None:
            return StainNormalization(method, number, fitted)
    raise PixelCAMError(
        f"evaluate_ood.test_time: '{method}' needs a training image of the source with stained tissue, and none of "
        f"{len(images)} has enough; remove '{method}' from evaluate_ood.test_time"
    )


def _to_bytes(images: Tensor) -> Tensor:
    return images.mul(255).round().to(torch.uint8)


def _fit(method: TestTime, image: Tensor) -> Any | None:  # noqa: ANN401 - torchstain has no types
    """Return torchstain's normalizer fitted on an image, uint8 (3, H, W), None where it has nothing to go by."""
    # Here and not above: it computes when it is imported, for half a second, and few runs need it.
    from torchstain.torch import normalizers  # noqa: PLC0415

    densities = -torch.log((image.flatten(1).float() + 1) / LIGHT)  # (3, pixels)
    stained = densities >= TRANSPARENT
    match method:
        case TestTime.MACENKO:
            # torchstain goes by the pixels that are dense in every channel.
            tissue = stained.all(dim=0)
            if tissue.float().mean() < LEAST_TISSUE:
                return None
            macenko = normalizers.TorchMacenkoNormalizer()
            try:
                macenko.fit(image, Io=LIGHT, beta=TRANSPARENT)
            except RuntimeError:  # of one pixel there is no covariance, and so no stain
                return None
            found = _are_two_stains(macenko.HERef, macenko.maxCRef, densities[:, tissue])
            return macenko if found else None
        case TestTime.REINHARD:
            if stained.any(dim=0).float().mean() < LEAST_TISSUE:
                return None
            reinhard = normalizers.TorchReinhardNormalizer()
            reinhard.fit(image)
            return reinhard if bool((reinhard.target_stds >= LEAST_DEVIATION).all()) else None
        case _:
            raise ValueError(f"'{method}' normalizes no stain; it must be one of {', '.join(STAIN_METHODS)}")


def _are_two_stains(stains: Tensor, strengths: Tensor, densities: Tensor) -> bool:
    """Return whether two stains differ, both are there, and tissue is made of them.

    By definition no more than 2 % of tissue lies beyond the two. torchstain finds others where an angle passes 180
    degrees, which takes an image that varies more between its stains than in their strength.

    Args:
        stains: unit columns, (3, 2).
        strengths: of each stain, (2,).
        densities: of the pixels of tissue, (3, pixels).
    """
    if not (stains.isfinite().all() and strengths.isfinite().all()):
        return False
    if torch.linalg.cross(stains[:, 0], stains[:, 1]).norm().item() < np.sin(np.radians(LEAST_ANGLE)):
        return False
    beyond = (torch.linalg.pinv(stains) @ densities < 0).any(dim=0).float().mean()
    return bool((strengths >= TRANSPARENT).all()) and beyond.item() <= MOST_BEYOND


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
            models = {name: self._measured(model, batches, device) for name, model in models.items()}
        localizers = {
            name: as_localizer(model, self.params, image_scale=self.image_scale) for name, model in models.items()
        }
        if self.normalization is None:
            return localizers
        return {name: StainNormalizedLocalizer(each, self.normalization) for name, each in localizers.items()}

    def _measured(
        self, model: Teacher | PixelCAM, batches: Iterable[EvaluationBatch], device: torch.device
    ) -> Teacher | PixelCAM:
        at_input_size = (scale_images(batch.images.to(device), 1 / self.image_scale) for batch in batches)
        return with_target_statistics(model, at_input_size, device, asked_by=f"evaluate_ood.test_time '{self.option}'")
