"""A trained teacher as a localizer: its CAM, read the way the params say."""

from itertools import product

import torch
from torch import Tensor

from pipeline.cams import average_cams, compute_cam
from pipeline.config import CamParams
from pipeline.errors import PixelCAMError
from pipeline.localization import Localization
from pipeline.resizing import scale_images
from pipeline.teacher import Teacher


class TeacherLocalizer:
    """A teacher as a localizer: its CAM for the true class, averaged over input scales and mirrored images if asked.

    Args:
        teacher: is put into evaluation mode.
        params: how the CAM is read.
        image_scale: how much larger the images come than the teacher's input, so that larger views have detail.
    """

    def __init__(self, teacher: Teacher, params: CamParams, *, image_scale: float = 1.0) -> None:
        self.teacher = teacher.eval()
        self.params = params
        self.image_scale = image_scale

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        """Return the logits of the images at the teacher's input size, and CAMs, float32 (B, h, w) in [0, 1]."""
        views = list(product(self.params.scales, (False, True) if self.params.flip else (False,)))
        results = {view: self._read_view(images, class_idx, *view) for view in views}
        cams = [cam for cam, _ in results.values()]
        if (1.0, False) in results:
            return Localization(results[1.0, False][1], average_cams(cams))
        with torch.inference_mode():
            logits = self.teacher(scale_images(images, 1 / self.image_scale)).image_logits.float()
        return Localization(logits, average_cams(cams))

    def _read_view(self, images: Tensor, class_idx: Tensor, scale: float, mirrored: bool) -> tuple[Tensor, Tensor]:
        """Return the CAM, as the image lies, and the logits of one view."""
        try:
            view = scale_images(images, scale / self.image_scale)
            cam, logits = compute_cam(
                self.teacher.encoder,
                self.teacher.image_head,
                view.flip(-1) if mirrored else view,
                class_idx,
                method=self.params.method,
                layers=self.params.layers,
            )
        except (AssertionError, RuntimeError) as error:
            if scale == 1:
                raise
            raise PixelCAMError(
                f"cam.scales: {self.teacher.encoder.spec.name} takes no images at scale {scale} ({error}); use [1.0]"
            ) from error
        return cam.flip(-1) if mirrored else cam, logits
