"""A trained teacher as a localizer: its CAM, read the way the params say."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.cams import average_cams, compute_cam
from pipeline.config import CamParams
from pipeline.errors import PixelCAMError
from pipeline.localization import Localization
from pipeline.teacher import Teacher


class TeacherLocalizer:
    """A teacher as a localizer: its CAM for the true class, averaged over input scales and mirrored images if asked."""

    def __init__(self, teacher: Teacher, params: CamParams) -> None:
        self.teacher = teacher
        self.params = params

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        """Return the logits of the images at their own size, and CAMs for `class_idx`, float32 (B, h, w) in [0, 1]."""
        views = [
            (scale, mirrored)
            for scale in self.params.scales
            for mirrored in ((False, True) if self.params.flip else (False,))
        ]
        cams = [self._cam_of_view(images, class_idx, scale, mirrored) for scale, mirrored in views]
        with torch.inference_mode():
            logits = self.teacher(images).image_logits.float()
        return Localization(logits, average_cams(cams))

    def _cam_of_view(self, images: Tensor, class_idx: Tensor, scale: float, mirrored: bool) -> Tensor:
        view = images
        if scale != 1:
            size = [round(scale * side) for side in images.shape[-2:]]
            view = interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)
        if mirrored:
            view = view.flip(-1)
        try:
            cam, _ = compute_cam(
                self.teacher.encoder,
                self.teacher.image_head,
                view,
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
        return cam.flip(-1) if mirrored else cam
