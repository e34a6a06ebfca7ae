"""A trained model as one network, from pixels as a decoder gives them to probabilities: all that leaves the house.

What happens between a picture and the model here, in Pillow and in views of the image, is part of the network, so that
whoever runs it elsewhere has nothing to do before or after, and nothing to get wrong.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from pipeline.cams.views import PLAIN
from pipeline.data.maps import Localizer, resize_map, scale_images
from pipeline.models.loading import as_localizer, load_net, map_params
from pipeline.models.pixelcam import PixelCAM
from pipeline.models.teacher import Teacher
from pipeline.params.config import CamParams, Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import CamMethod, PixelClasses
from pipeline.runtime.files import first_line, is_shortage

INPUT: Final = "image"
PROBABILITIES: Final = "probabilities"
MAP: Final = "map"
CLASS_MAPS: Final = "class_maps"
SIZES: Final = ("batch", "height", "width")  # of the input, which are free
SMALLEST_SIDE: Final = 16  # pixels of an image
EXAMPLE_SHAPE: Final = (2, 93, 117, 3)  # of the image that a network is traced with; no size is kept
FILTER_PARTS: Final = 2**22  # what Pillow divides a pixel of its filter into
HALF_OF_PARTS: Final = 2**11
CODE_NOTES: Final = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node")
LOGGERS: Final = ("root", "torch.onnx", "onnxscript", "onnx_ir")
TRACEABLE: Final = (
    CamMethod.CAM,
    CamMethod.GRADCAM,
    CamMethod.GRADCAM_PP,
    CamMethod.XGRADCAM,
    CamMethod.HIRESCAM,
    CamMethod.LAYERCAM,
    CamMethod.ROLLOUT,
    CamMethod.TSCAM,
    CamMethod.SAT,
)


class ExportedNetwork(nn.Module):
    """Images of any size -> class probabilities and maps of the same size.

    Args:
        net: a teacher or PixelCAM.
        localizer: the same net as it localizes.
        image_scale: how much larger than its input the localizer wants images.
        input_size: side in pixels of the square that the net takes.
        has_class_maps: whether it has a map for each class.
    """

    def __init__(
        self,
        net: Teacher | PixelCAM,
        localizer: Localizer,
        *,
        image_scale: float,
        input_size: int,
        has_class_maps: bool,
    ) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.localizer = localizer
        self.image_scale = image_scale
        self.side = round(image_scale * input_size)
        self.has_class_maps = has_class_maps

    @property
    def output_names(self) -> tuple[str, ...]:
        """What `forward` returns, in its order."""
        return (PROBABILITIES, MAP, *((CLASS_MAPS,) if self.has_class_maps else ()))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Classify and localize.

        Args:
            image: uint8 (B, H, W, 3), RGB.

        Returns:
            probabilities float32 (B, K), maps float32 (B, H, W) in [0, 1], and where there are any maps of classes
            float32 (B, K, H, W). A teacher's map is its CAM for the class that it predicts.
        """
        size = image.shape[1:3]
        squares = squash_in_graph(image, self.side)
        found = self.localizer(squares, self._predicted_class(squares))
        said = [found.image_logits.softmax(dim=1), resize_map(found.maps, size).clamp(0, 1)]
        if self.has_class_maps and found.class_maps is not None:
            said.append(resize_map(found.class_maps, size).clamp(0, 1))
        return tuple(said)

    def _predicted_class(self, squares: Tensor) -> Tensor:
        if isinstance(self.net, PixelCAM):  # whose map knows no class
            return squares.new_zeros(squares.shape[0], dtype=torch.int64)
        logits: Tensor = self.net(scale_images(squares, 1 / self.image_scale)).image_logits
        return logits.argmax(dim=1)


def squash_in_graph(image: Tensor, side: int) -> Tensor:
    """Resize images, uint8 (B, H, W, 3), to squares float32 (B, 3, side, side) in [0, 1], as `data.image_store.squash`.

    The same values to the last bit as Pillow's, on any machine: see `_shrink`. Products of matrices run everywhere,
    where a resizing without aliasing does not.
    """
    pixels = image.permute(0, 3, 1, 2).float()
    height, width = image.shape[1:3]
    narrow = _shrink(pixels, width, side)
    return _shrink(narrow.transpose(2, 3), height, side).transpose(2, 3) / 255


def _shrink(pixels: Tensor, old: int, new: int) -> Tensor:
    """Resize the rows of images, whole numbers (B, 3, H, old) in [0, 255], to `new` pixels, (B, 3, H, new).

    Pillow rounds its sums half up. Here they are added in two halves of 11 bits each, every one a whole number that
    float32 holds exactly, so that no order of the additions changes a bit (of images up to 32 times as large as the
    square).
    """
    parts = filter_parts(old, new)
    coarse = parts // HALF_OF_PARTS
    fine = parts - coarse * HALF_OF_PARTS
    sums = pixels @ coarse.float().T + (pixels @ fine.float().T / HALF_OF_PARTS).floor()
    return ((sums + HALF_OF_PARTS / 2) / HALF_OF_PARTS).floor()


def filter_parts(old: int, new: int) -> Tensor:
    """Return what each of `new` pixels takes of each of `old`, in parts of 2**22, int64 (new, old).

    Pillow's bilinear filter is a triangle, as wide as the pixels of the smaller image. Distances are counted in halves
    of a `new`th of a pixel, which makes all of it whole numbers: some runtimes know no float64.
    """
    places, centres = (2 * torch.arange(old) + 1) * new, (2 * torch.arange(new) + 1) * old
    half_width: int = 2 * torch.sym_max(old, new)  # type: ignore[no-untyped-call]
    weights: Tensor = (half_width - (places - centres[:, None]).abs()).clamp(min=0)
    total = weights.sum(dim=1, keepdim=True)
    return (2 * FILTER_PARTS * weights + total) // (2 * total)  # rounded half up


def build_network(folder: Path, params: Params) -> ExportedNetwork:
    """Load a model as the network that leaves, reading its map as the params say.

    Raises:
        PixelCAMError: the model is missing or damaged, or its CAM is made in a way that no other program can follow.
    """
    net, info = load_net(folder, params.evaluate_ood.weights[0])
    if isinstance(net, Teacher):
        _check_traceable(params.cam)
    scale = map_params(net, params).image_scale
    return ExportedNetwork(
        net,
        as_localizer(net, params, image_scale=scale),
        image_scale=scale,
        input_size=info.encoder.input_size,
        has_class_maps=info.pixel_classes is PixelClasses.IMAGE_CLASSES,
    )


def one_view(params: Params) -> Params:
    """Return params by which maps are read once, from the image as it is."""
    plain = PLAIN.model_dump()
    return params.model_copy(
        update={
            "cam": params.cam.model_copy(update=plain),
            "pixelcam_map": params.pixelcam_map.model_copy(update=plain),
        }
    )


def trace(network: ExportedNetwork) -> ExportedProgram:
    """Record what a network computes, gradients at its features included, for any number and size of images.

    Raises:
        PixelCAMError: the network holds what cannot be recorded, such as the gradient of an encoder's inner layers.
    """
    example = torch.zeros(EXAMPLE_SHAPE, dtype=torch.uint8)
    try:
        with quietly(), torch.no_grad():
            recorded = make_fx(network, tracing_mode="symbolic", _allow_non_fake_inputs=True)(example)
            sizes = {number: Dim(name) for number, name in enumerate(SIZES)}
            program = torch.export.export(recorded, (example,), dynamic_shapes=(sizes,))
    except Exception as error:  # torch raises many kinds
        if isinstance(error, PixelCAMError) or is_shortage(error):
            raise
        raise PixelCAMError(f"the model cannot be recorded as one network ({first_line(error)})") from error
    for node in program.graph.nodes:  # which name files of this machine
        for note in CODE_NOTES:
            node.meta.pop(note, None)
    return program


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the warnings of torch's own exporter about itself from the terminal."""
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in LOGGERS}
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)


def _check_traceable(params: CamParams) -> None:
    """Refuse a CAM that cannot be recorded, before minutes go by."""
    if params.method not in TRACEABLE:
        known = ", ".join(TRACEABLE)
        raise PixelCAMError(f"cam.method: {params.method} cannot be exported; a teacher's map can be read by {known}")
    if set(params.layers) != {-1}:
        raise PixelCAMError(
            f"cam.layers: expected [-1] in an export, got {list(params.layers)}: gradients within the encoder cannot "
            "be exported"
        )
