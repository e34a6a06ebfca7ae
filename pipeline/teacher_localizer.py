"""A trained teacher as a localizer: its CAM, read the way the params say."""

from torch import Tensor

from pipeline.cams import average_cams, compute_cam
from pipeline.config import CamParams
from pipeline.localization import Localization
from pipeline.teacher import Teacher
from pipeline.views import read_views


class TeacherLocalizer:
    """A teacher as a localizer: its CAM for the true class, averaged over views if asked.

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

        def read(view: Tensor) -> tuple[Tensor, Tensor]:
            return compute_cam(
                self.teacher.encoder,
                self.teacher.image_head,
                view,
                class_idx,
                method=self.params.method,
                layers=self.params.layers,
            )

        cams, logits = read_views(images, self.params, image_scale=self.image_scale, section="cam", read=read)
        return Localization(logits, average_cams(cams))
