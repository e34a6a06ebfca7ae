"""Grad-CAM and LayerCAM at the last feature map against torch-cam and grad-cam: the same maps, faster."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import torch
from pytorch_grad_cam import GradCAM as PyTorchGradCAM
from pytorch_grad_cam import LayerCAM as PyTorchLayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from torchcam.methods import GradCAM as TorchCamGradCAM
from torchcam.methods import LayerCAM as TorchCamLayerCAM

from benchmarks.networks import CLASSES, Classifier, make_teacher, some_images
from benchmarks.outcome import Outcome, speed
from benchmarks.settings import Settings
from benchmarks.timing import side_by_side
from pipeline.cams.methods import compute_cam
from pipeline.cams.request import normalize_cam
from pipeline.params.vocabulary import CamMethod

TORCH_CAM: Final = {CamMethod.GRADCAM: TorchCamGradCAM, CamMethod.LAYERCAM: TorchCamLayerCAM}
GRAD_CAM: Final = {CamMethod.GRADCAM: PyTorchGradCAM, CamMethod.LAYERCAM: PyTorchLayerCAM}
SAME: Final = 1e-3  # of maps in [0, 1]

Read = Callable[[], Tensor]


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield the speed for each encoder, method and package.

    Raises:
        ValueError: maps differ.
    """
    count = settings.extraction_batch
    for name in settings.encoders:
        classifier = Classifier(make_teacher(name, input_size=settings.input_size)).eval().to(settings.fabric.device)
        images = some_images(count, settings.input_size).to(settings.fabric.device)
        classes = (torch.arange(count) % CLASSES).to(settings.fabric.device)
        for method in TORCH_CAM:
            ours = _ours(classifier, images, classes, method)
            theirs = {
                "torchcam": _torch_cam(classifier, images, classes, method),
                "grad-cam": _grad_cam(classifier, images, classes, method),
            }
            for package, read in theirs.items():
                _check_same(ours(), read(), what=f"{name}, {method}, {package}")  # the warm-up, too
                times = side_by_side(
                    ours, read, rounds=settings.rounds(3), device=settings.fabric.device, warm_up=False
                )
                yield speed("gradient_maps", f"{name}, batch {count}", method.value, package, times=times, target=2.5)


def _ours(classifier: Classifier, images: Tensor, classes: Tensor, method: CamMethod) -> Read:
    return lambda: compute_cam(classifier.encoder, classifier.head, images, classes, method=method)[0]


def _torch_cam(classifier: Classifier, images: Tensor, classes: Tensor, method: CamMethod) -> Read:
    def read() -> Tensor:
        with TORCH_CAM[method](classifier, "encoder") as extractor:
            logits = classifier(images)
            maps: Tensor = extractor(classes.tolist(), logits)[0]
        classifier.zero_grad()
        return maps

    return read


def _grad_cam(classifier: Classifier, images: Tensor, classes: Tensor, method: CamMethod) -> Read:
    def read() -> Tensor:
        with GRAD_CAM[method](classifier, [classifier.encoder]) as extractor:
            extractor(images, [ClassifierOutputTarget(index) for index in classes.tolist()])
            kept = extractor.activations_and_grads
            features, gradients = (each[0].detach().cpu().numpy() for each in (kept.activations, kept.gradients))
            # Before it is enlarged to the image's size, so that it can be compared cell by cell.
            maps = extractor.get_cam_image(images, None, None, features, gradients, eigen_smooth=False)
        classifier.zero_grad()
        return normalize_cam(torch.from_numpy(np.maximum(maps, 0))).to(images.device)

    return read


def _check_same(found: Tensor, expected: Tensor, *, what: str) -> None:
    apart = float((found - expected.detach()).abs().max())
    if not apart <= SAME or not float(found.max()) > 0.9:
        raise ValueError(f"{what}: maps are {apart} apart, or flat")
