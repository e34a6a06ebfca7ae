"""Export a trained model in any of the formats: read, fit its threshold, convert, check, and only then write."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from PIL import Image

from pipeline.data.images import read_image
from pipeline.data.manifest import PreparedDomain, Split, read_domain
from pipeline.data.pixels import UInt8Image
from pipeline.export.bioimage import Presentation, write_package
from pipeline.export.model_card import read_card
from pipeline.export.network import MAP
from pipeline.export.node_packages import node_package
from pipeline.export.onnx_file import Exported, export_onnx, session_of
from pipeline.export.optional import optional_module
from pipeline.export.quantization import CALIBRATION_IMAGES, quantize
from pipeline.export.real_images import checking_images, fit_threshold, pick_images, with_other_sizes
from pipeline.export.torch_file import write_torch_file
from pipeline.export.web import HEAT_COLOURS, write_web
from pipeline.metrics.localization import FIXED_THRESHOLD
from pipeline.metrics.scores import Threshold, ThresholdSource
from pipeline.models.files import read_info
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import ExportFormat
from pipeline.runtime.console import say
from pipeline.runtime.files import replacing_file, replacing_folder

ENDINGS: Final = {
    ExportFormat.ONNX: ".onnx",
    ExportFormat.TORCH_EXPORT: ".pt2",
    ExportFormat.BIOIMAGEIO: ".zip",
    ExportFormat.WEB: "",
}
COVER_SIZE: Final = (256, 256)  # of each of the two pictures side by side
RUNTIME: Final = "onnxruntime-web"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be exported, and how.

    Attributes:
        model: its folder.
        params: say how its map is read, and which weights.
        prepared: the folder of prepared domains; that of the model gives the images where none are named.
        images: real images to check on; none: the domain's.
        threshold: from which map value on there is a region; None: fitted on the domain's validation images.
        int8: whether an ONNX file is quantized.
        authors: of a package; none: git's user.
        card: the model card; None: the one that the pipeline wrote.
    """

    model: Path
    params: Params
    prepared: Path
    images: Sequence[Path] = ()
    threshold: float | None = None
    int8: bool = False
    authors: Sequence[str] = ()
    card: Path | None = None


def default_output(model: Path, form: ExportFormat) -> Path:
    """Return where an export goes unless it is said: `exports/pixelcam.onnx`, or the folder `exports/pixelcam_web`."""
    name = f"{model.name}_web" if form is ExportFormat.WEB else f"{model.name}{ENDINGS[form]}"
    return Path("exports") / name


def export_model(request: Request, form: ExportFormat, output: Path) -> dict[str, Any]:
    """Export a model, and return what the export says of itself.

    Args:
        request: what, and how.
        form: of the export.
        output: a file, for the web a folder; it is replaced whole, or not at all.

    Raises:
        PixelCAMError: something is missing, the export differs from the model, or the output has another ending.
    """
    _check_output(output, form)
    if request.int8 and form not in (ExportFormat.ONNX, ExportFormat.WEB):
        raise PixelCAMError(f"--int8 goes with the formats onnx and web, got {form}; leave it out")
    runtime = node_package(RUNTIME) if form is ExportFormat.WEB else None
    authors, card = _signed(request) if form is ExportFormat.BIOIMAGEIO else ((), "")
    domain = _domain_of(request)
    images = _images(request, domain)
    threshold = _threshold(request, domain)
    say(f"exporting {request.model}: converting and checking on {len(images)} images, up to a minute or two")
    if form is ExportFormat.TORCH_EXPORT:
        with replacing_file(output) as path:
            return write_torch_file(path, request.model, params=request.params, images=images, threshold=threshold)
    exported = export_onnx(request.model, params=request.params, images=images, threshold=threshold)
    if request.int8:
        exported = _quantize(exported, domain)
    match form:
        case ExportFormat.WEB:
            assert runtime is not None
            with replacing_folder(output) as folder:
                write_web(folder, model=exported.model, metadata=exported.metadata, runtime=runtime)
        case ExportFormat.BIOIMAGEIO:
            with replacing_file(output) as path:
                write_package(path, exported, _present(exported, images[0], authors=authors, card=card))
        case _:
            with replacing_file(output) as path:
                path.write_bytes(exported.model)
    return exported.metadata


def _check_output(output: Path, form: ExportFormat) -> None:
    if output.suffix != ENDINGS[form]:
        expected = f"a name that ends with {ENDINGS[form]}" if ENDINGS[form] else "a folder, whose name has no ending"
        raise PixelCAMError(f"{output}: the format {form} writes {expected}; mend --output")


def _domain_of(request: Request) -> PreparedDomain | None:
    """Return the domain that the model learned from; None where it is not prepared here and is not needed."""
    name = read_info(request.model).domain
    if (request.prepared / name).exists():
        return read_domain(name, request.params, request.prepared / name)
    if request.images and not request.int8:
        return None
    raise PixelCAMError(
        f"{request.prepared / name}: does not exist; run 'dvc repro prepare@{name}', or give real images with --image"
    )


def _images(request: Request, domain: PreparedDomain | None) -> list[UInt8Image]:
    if request.images:
        return with_other_sizes([read_image(path) for path in request.images])
    assert domain is not None
    return checking_images(domain)


def _threshold(request: Request, domain: PreparedDomain | None) -> Threshold:
    if request.threshold is not None:
        return Threshold(request.threshold, ThresholdSource.FIXED)
    if domain is None:
        say(f"the threshold is {FIXED_THRESHOLD}, fitted on nothing; give --threshold where you know a better one")
        return Threshold(FIXED_THRESHOLD, ThresholdSource.FIXED)
    return fit_threshold(request.model, request.params, domain)


def _quantize(exported: Exported, domain: PreparedDomain | None) -> Exported:
    assert domain is not None
    calibration = pick_images(domain.manifest.of_split(Split.TRAIN), count=CALIBRATION_IMAGES)
    return quantize(exported, calibration=calibration, domain=domain)


def _signed(request: Request) -> tuple[tuple[str, ...], str]:
    """Return the authors and the card of a package, and see that it can be written, before a minute's conversion."""
    optional_module("bioimageio.spec")
    authors = tuple(request.authors) or _git_user()
    if not authors:
        raise PixelCAMError("a package names its authors; give --author NAME, or set git's user.name")
    return authors, read_card(request.model, request.card)


def _present(exported: Exported, image: UInt8Image, *, authors: tuple[str, ...], card: str) -> Presentation:
    heat = session_of(exported.model)(image)[MAP]
    coloured = (np.asarray(colormaps[HEAT_COLOURS](heat))[..., :3] * 255).round().astype(np.uint8)
    halves = [np.asarray(Image.fromarray(half).resize(COVER_SIZE)) for half in (image, coloured)]
    return Presentation(
        authors=authors,
        card=card,
        test_image=image,
        cover=np.concatenate(halves, axis=1),
    )


def _git_user() -> tuple[str, ...]:
    """Return the name that git signs with here; none where it knows none."""
    try:
        found = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
    except OSError:
        return ()
    name = found.stdout.strip()
    return (name,) if name else ()
