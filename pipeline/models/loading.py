"""Load a trained model, whichever of the two kinds its folder holds, ready to classify and localize."""

from pathlib import Path

from torch import Tensor

from pipeline.cams.methods import average_cams, compute_cam
from pipeline.cams.request import normalize_cam
from pipeline.cams.views import read_views
from pipeline.data.maps import Localization, Localizer
from pipeline.models.files import ModelInfo, read_info
from pipeline.models.pixelcam import PixelCAM, PixelCAMLocalizer, load_pixelcam
from pipeline.models.teacher import Teacher, load_teacher
from pipeline.params.config import CamParams, MapParams, Params
from pipeline.params.vocabulary import Weights


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
        if self.params.margin:
            cams = [normalize_cam(cam) for cam in cams]  # what was cut off may have held the highest value
        return Localization(logits, average_cams(cams))


def load_net(folder: Path, weights: Weights = Weights.SELECTED) -> tuple[Teacher | PixelCAM, ModelInfo]:
    """Read a model's folder; the model comes in evaluation mode, on the CPU.

    Raises:
        PixelCAMError: a file is missing, damaged, of another schema, or its weights do not fit or are not finite.
    """
    is_teacher = read_info(folder).pixel_head is None
    return load_teacher(folder, weights) if is_teacher else load_pixelcam(folder, weights)


def map_params(model: Teacher | PixelCAM, params: Params) -> MapParams:
    """Return how the maps of a model are read: a teacher's CAM, or PixelCAM's map."""
    return params.pixelcam_map if isinstance(model, PixelCAM) else params.cam


def as_localizer(model: Teacher | PixelCAM, params: Params, *, image_scale: float) -> Localizer:
    """Return a model ready to localize: a teacher by its CAM, read as the params say, PixelCAM by its map.

    Args:
        model: is put into evaluation mode.
        params: all parameters; how maps are read.
        image_scale: how much larger the images come than the model's input.
    """
    if isinstance(model, PixelCAM):
        return PixelCAMLocalizer(model, params.pixelcam_map, image_scale=image_scale)
    return TeacherLocalizer(model, params.cam, image_scale=image_scale)
