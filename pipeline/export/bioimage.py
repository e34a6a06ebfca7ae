"""A trained model as a package of the BioImage Model Zoo: ONNX weights with a description that other programs read.

The format is the Zoo's, version 0.5: https://bioimage.io. Its own library writes the package, validates it, runs it on
the test image and compares what it says with the test output.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.export.network import CLASS_MAPS, INPUT, MAP, PROBABILITIES, SMALLEST_SIDE, quietly
from pipeline.export.onnx_file import OPSET, Exported, session_of
from pipeline.export.optional import optional_module
from pipeline.params.errors import PixelCAMError

PAPER: Final = "PixelCAM: joint image classification and region-of-interest localization, MIDL 2025"
PAPER_DOI: Final = "10.48550/arXiv.2503.24135"
LICENSE: Final = "Apache-2.0"
TOLERANCES: Final = {"relative_tolerance": 1e-3, "absolute_tolerance": 1e-3}


@dataclass(frozen=True, kw_only=True, eq=False)
class Presentation:
    """What a package shows of itself beside the model.

    Attributes:
        authors: names, at least one.
        card: the model card, Markdown.
        test_image: uint8 (H, W, 3), which goes into the package; what the model says of it goes there too.
        cover: uint8 (h, 2 h, 3), the picture that the Zoo lists it by.
    """

    authors: Sequence[str]
    card: str
    test_image: NDArray[np.uint8]
    cover: NDArray[np.uint8]


def write_package(path: Path, exported: Exported, presentation: Presentation) -> None:
    """Write the package, a zip file, validate it and run its test.

    Args:
        path: ends with `.zip`; what lies there after an error is the caller's to remove.
        exported: the model, in ONNX.
        presentation: all else.

    Raises:
        PixelCAMError: the packages of the extra `export` are missing, or the package fails its own test.
    """
    spec = optional_module("bioimageio.spec")
    with TemporaryDirectory() as name, quietly():
        folder = Path(name)
        _write_files(folder, exported, presentation)
        with spec.ValidationContext(root=folder, perform_io_checks=True):
            described = _describe(folder, exported, presentation)
            spec.save_bioimageio_package(described, output_path=path)
    run_package_test(path)


def run_package_test(path: Path) -> None:
    """Let the Zoo's own library validate, run and compare a package; raise a `PixelCAMError` that names what failed."""
    core = optional_module("bioimageio.core")
    with quietly():
        summary = core.test_model(path)
    if summary.status != "passed":
        failed = [detail.name for detail in summary.details if detail.status != "passed"]
        raise PixelCAMError(f"{path}: the package fails its own test ({'; '.join(failed)}); export it as onnx instead")


def _write_files(folder: Path, exported: Exported, presentation: Presentation) -> None:
    (folder / "model.onnx").write_bytes(exported.model)
    (folder / "README.md").write_text(presentation.card, encoding="utf-8")
    Image.fromarray(presentation.cover).save(folder / "cover.png")
    np.save(folder / f"{INPUT}.npy", presentation.test_image[np.newaxis])
    for name, values in session_of(exported.model)(presentation.test_image).items():
        np.save(folder / f"{name}.npy", values[np.newaxis])


def _describe(folder: Path, exported: Exported, presentation: Presentation) -> Any:  # noqa: ANN401 - of an optional package
    v0_5 = optional_module("bioimageio.spec.model.v0_5")
    about, file = exported.metadata, v0_5.FileDescr
    return v0_5.ModelDescr(
        name=_plain(f"PixelCAM {about['kind']} {about['domain']}"),
        description=_plain(
            f"Says what a histology image shows ({', '.join(about['classes'])}) and where, learned from image labels. "
            f"The region is where the map reaches {about['threshold']:.3f}. Research only."
        ),
        authors=[v0_5.Author(name=name) for name in presentation.authors],
        cite=[v0_5.CiteEntry(text=PAPER, doi=PAPER_DOI)],
        license=LICENSE,
        documentation=file(source=folder / "README.md"),
        covers=[file(source=folder / "cover.png")],
        tags=["histology", "weakly-supervised", "localization", "segmentation", "classification", "2d", "rgb"],
        inputs=[_input(v0_5, folder)],
        outputs=[_output(v0_5, folder, name, about["classes"]) for name in exported.output_names],
        weights=v0_5.WeightsDescr(onnx=v0_5.OnnxWeightsDescr(source=folder / "model.onnx", opset_version=OPSET)),
        config=v0_5.Config(
            bioimageio=v0_5.BioimageioConfig(reproducibility_tolerance=[v0_5.ReproducibilityTolerance(**TOLERANCES)]),
            pixelcam=about,
        ),
    )


def _input(v0_5: Any, folder: Path) -> Any:  # noqa: ANN401
    size = v0_5.ParameterizedSize(min=SMALLEST_SIDE, step=1)
    return v0_5.InputTensorDescr(
        id=INPUT,
        description="An RGB image of any size, as it comes from the file",
        axes=[
            v0_5.BatchAxis(),
            v0_5.SpaceInputAxis(id="y", size=size),
            v0_5.SpaceInputAxis(id="x", size=size),
            v0_5.ChannelAxis(channel_names=["red", "green", "blue"]),
        ],
        data=v0_5.IntervalOrRatioDataDescr(type="uint8", range=(0, 255)),
        test_tensor=v0_5.FileDescr(source=folder / f"{INPUT}.npy"),
    )


def _output(v0_5: Any, folder: Path, name: str, classes: Sequence[str]) -> Any:  # noqa: ANN401
    names = v0_5.ChannelAxis(channel_names=_identifiers(classes))
    space = [
        v0_5.SpaceOutputAxis(id=axis, size=v0_5.SizeReference(tensor_id=INPUT, axis_id=axis)) for axis in ("y", "x")
    ]
    axes = {PROBABILITIES: [names], MAP: space, CLASS_MAPS: [names, *space]}[name]
    meaning = {
        PROBABILITIES: "The probability of each class; they add up to 1",
        MAP: "How sure the model is that a pixel belongs to the region of interest",
        CLASS_MAPS: "The same for each class",
    }[name]
    return v0_5.OutputTensorDescr(
        id=name,
        description=meaning,
        axes=[v0_5.BatchAxis(), *axes],
        data=v0_5.IntervalOrRatioDataDescr(type="float32", range=(0, 1)),
        test_tensor=v0_5.FileDescr(source=folder / f"{name}.npy"),
    )


def _identifiers(classes: Sequence[str]) -> list[str]:
    """Return names of classes as the format wants them: letters, digits and underscores, each once."""
    names = [re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "unnamed" for name in classes]
    safe = [name if name[0].isalpha() else f"class_{name}" for name in names]
    return safe if len(set(safe)) == len(safe) else [f"{name}_{index}" for index, name in enumerate(safe)]


def _plain(text: str) -> str:
    """Return text without the characters that the format refuses in names."""
    return re.sub(r"[^\w\s,.()+-]", " ", text, flags=re.ASCII)
