"""Load a trained model, whichever of the two kinds its folder holds."""

from pathlib import Path

from pipeline.choices import Weights
from pipeline.config import MapParams, Params
from pipeline.localization import Localizer
from pipeline.model_files import ModelInfo, read_info
from pipeline.pixelcam import PixelCAM, PixelCAMLocalizer, load_pixelcam
from pipeline.teacher import Teacher, load_teacher
from pipeline.teacher_localizer import TeacherLocalizer


def load_model(folder: Path, weights: Weights = Weights.SELECTED) -> tuple[Teacher | PixelCAM, ModelInfo]:
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
