"""Use a trained PixelCAM model on image files: class probabilities, and the map as a picture and as an array."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.devices import make_fabric
from pipeline.errors import PixelCAMError
from pipeline.files import replacing_file
from pipeline.images import read_image
from pipeline.overlays import heat_overlay, write_picture
from pipeline.pixelcam import PixelCAMLocalizer, load_pixelcam
from pipeline.resizing import resize_map
from pipeline.square_images import squash


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one image file.

    Attributes:
        image: the file.
        probabilities: by class name, in the model's order; they add up to 1.
        overlay: PNG file, the map in colours over the image.
        map: NumPy file, float32 (H, W) in [0, 1] at the image's size, the probability of foreground.
    """

    image: Path
    probabilities: dict[str, float]
    overlay: Path
    map: Path


def predict(images: Sequence[Path], *, model: Path, output: Path) -> Iterator[Prediction]:
    """Predict image after image and write each one's map to the folder `output`.

    Raises:
        PixelCAMError: an image is missing or cannot be read, two have one name, or the model is missing or damaged.
            Names are checked before any work begins.
    """
    _check_names(images)
    pixelcam, info = load_pixelcam(model)
    device = make_fabric().device
    localizer = PixelCAMLocalizer(pixelcam.to(device))
    for image in images:
        yield _predict_one(image, localizer, info.classes, info.encoder.input_size, device, output)


def _check_names(images: Sequence[Path]) -> None:
    stems: dict[str, Path] = {}
    for image in images:
        if not image.is_file():
            raise PixelCAMError(f"{image}: is no file; give image files, such as folder/*.png")
        other = stems.setdefault(image.stem, image)
        if other != image:
            raise PixelCAMError(f"{image}: would write the same files as {other}; predict them into different folders")


def _predict_one(
    path: Path,
    localizer: PixelCAMLocalizer,
    classes: tuple[str, ...],
    input_size: int,
    device: torch.device,
    output: Path,
) -> Prediction:
    image = read_image(path)
    square = torch.tensor(squash(image, input_size)).permute(2, 0, 1).float().div_(255)
    localization = localizer(square.unsqueeze(0).to(device), torch.zeros(1, dtype=torch.int64, device=device))
    heat = resize_map(localization.maps, image.shape[:2])[0].clamp(0, 1).cpu().numpy()
    overlay, array = output / f"{path.stem}_overlay.png", output / f"{path.stem}_map.npy"
    write_picture(overlay, heat_overlay(image, heat=heat))
    with replacing_file(array) as temporary, temporary.open("wb") as file:
        np.save(file, heat, allow_pickle=False)
    probabilities = localization.image_logits[0].softmax(dim=0).tolist()
    return Prediction(path, dict(zip(classes, probabilities, strict=True)), overlay, array)
