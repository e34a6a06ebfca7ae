"""A trained model as a page in a browser: whoever opens it tries the model on pictures that stay on their machine.

The page needs no server: opened from a folder it may fetch nothing, so the engine and the model come as packed text in
scripts beside it, named by their content. Its policy lets it run these and connect to nothing. Names from outside are
escaped by the template, and reach the script as JSON.
"""

import gzip
import hashlib
import importlib.metadata
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import colormaps
from numpy.typing import NDArray

from pipeline.export.network import CLASS_MAPS, MAP, PROBABILITIES
from pipeline.export.onnx_file import session_of
from pipeline.metrics.scores import ThresholdSource
from pipeline.params.errors import PixelCAMError

TEMPLATES: Final = Path(__file__).parent / "templates"
INDEX: Final = "index.html"
LICENCES: Final = "licences.txt"
SCRIPT: Final = "dist/ort.webgpu.bundle.min.mjs"  # of the engine: runs on WebGPU and on WebAssembly
BINARY: Final = "dist/ort-wasm-simd-threaded.asyncify.wasm"
PIECE: Final = 3 * 2**20  # bytes of a script, so that loading shows and no text grows too long for a browser
EXAMPLE_SIZE: Final = (24, 40)  # height and width of the image by which a visitor's machine is checked
TOLERANCE: Final = 1e-3
TOLERANCE_OF_INTEGERS: Final = 0.1  # a sum that is rounded the other way moves an int8 model by a step
HEAT_COLOURS: Final = "viridis"
HEAT_SHARE: Final = 0.75  # of a map's colours over grey tissue
KINDS: Final = {"pixelcam": "PixelCAM", "teacher": "Teacher"}
THRESHOLDS: Final = {
    ThresholdSource.VALIDATION: "the best on validation masks of {domain}",
    ThresholdSource.MASK_FREE: "read from validation maps of {domain}, without masks",
    ThresholdSource.FIXED: "fixed, and fitted to no images",
}


@dataclass(frozen=True)
class Piece:
    """A script beside the page: its name, and its text."""

    path: str
    text: str


def write_web(folder: Path, *, model: bytes, metadata: Mapping[str, Any], runtime: Path) -> None:
    """Write the page of a model and all that it needs into a folder; the same bytes for the same arguments.

    Args:
        folder: an empty one.
        model: an ONNX file, as `export_onnx` makes it.
        metadata: what it says of itself.
        runtime: the folder of the npm package onnxruntime-web.

    Raises:
        PixelCAMError: the package lacks a file, or the model cannot be run.
    """
    packed = {
        "runtime": list(pack("runtime", _read(runtime / SCRIPT))),
        "wasm": list(pack("wasm", _read(runtime / BINARY))),
        "model": list(pack("model", model)),
    }
    for pieces in packed.values():
        for piece in pieces:
            (folder / piece.path).parent.mkdir(exist_ok=True)
            (folder / piece.path).write_text(piece.text, encoding="ascii")
    files = {name: [piece.path for piece in pieces] for name, pieces in packed.items()}
    (folder / LICENCES).write_text(_licences(runtime), encoding="utf-8", newline="\n")
    (folder / INDEX).write_text(render_page(metadata, files, model), encoding="utf-8", newline="\n")


def render_page(metadata: Mapping[str, Any], files: Mapping[str, list[str]], model: bytes) -> str:
    """Return the page as HTML.

    Args:
        metadata: what the model says of itself.
        files: the scripts beside the page, by what they hold, in their order.
        model: the ONNX file, for what it says about the example.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    example, has_class_maps = _example(model, metadata)
    facts = {
        "classes": metadata["classes"],
        "threshold": metadata["threshold"],
        "files": files,
        "example": example,
        "colours": _heat_colours(256),
        "share": HEAT_SHARE,
    }
    source = THRESHOLDS[ThresholdSource(metadata["threshold_from"])].format(domain=metadata["domain"])
    return environment.get_template("page.html.j2").render(
        nonce=hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32],
        title=f"{KINDS[metadata['kind']]}, trained on {metadata['domain']}",
        about=metadata,
        facts=facts,
        rows=_rows(metadata, source),
        listed_classes=" and ".join([", ".join(metadata["classes"][:-1]), metadata["classes"][-1]]),
        has_class_maps=has_class_maps,
        map_title="Map" if metadata["kind"] == "pixelcam" else "Map of that class",
        threshold_note=f"The threshold {metadata['threshold']:.3f} is {source}.",
        ramp=_ramp(),
        licences=LICENCES,
    )


def pack(name: str, content: bytes) -> Iterator[Piece]:
    """Yield bytes as scripts that hand them to the page, packed (gzip, base64), each named by the whole content."""
    packed = gzip.compress(content, compresslevel=6, mtime=0)
    digest = hashlib.sha256(content).hexdigest()[:12]
    for number, start in enumerate(range(0, len(packed), PIECE)):
        path = f"files/{name}.{digest}.{number}.js"
        text = b64encode(packed[start : start + PIECE]).decode("ascii")
        yield Piece(path, f'receivePiece("{path}", "{text}");\n')


def example_image(height: int, width: int) -> NDArray[np.uint8]:
    """Return the image that the page makes too (templates/engine.js): uint8 (height, width, 3), all values in it."""
    y, x, channel = np.mgrid[:height, :width, :3]
    return np.asarray((7 * x + 13 * y + 29 * channel + x * y) % 256, dtype=np.uint8)


def _example(model: bytes, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return what the model says about the example, JSON values, and whether it has a map for each class."""
    height, width = EXAMPLE_SIZE
    said = session_of(model)(example_image(height, width))
    example = {
        "height": height,
        "width": width,
        "probabilities": [round(float(value), 6) for value in said[PROBABILITIES]],
        "map": [round(float(value), 6) for value in said[MAP].ravel()],
        "tolerance": TOLERANCE_OF_INTEGERS if "quantization" in metadata else TOLERANCE,
    }
    return example, CLASS_MAPS in said


def _rows(metadata: Mapping[str, Any], threshold_source: str) -> list[tuple[str, str]]:
    """Return what the page tells of the model, as names and values."""
    check, side = metadata["check"], metadata["input_size"]
    off = ", ".join(f"{name} {value:g}" for name, value in check["largest_difference"].items())
    read = ", ".join(f"{name} {value}" for name, value in metadata["read"].items())
    return [
        ("kind", KINDS[metadata["kind"]]),
        ("learned from", str(metadata["domain"])),
        ("classes", ", ".join(metadata["classes"])),
        ("encoder", str(metadata["encoder"])),
        ("input", f"RGB of any size, which the model squashes to {side} × {side} pixels"),
        ("map", f"{metadata['map_of']}; {read}"),
        ("threshold", f"{metadata['threshold']:.3f}, {threshold_source}"),
        ("checked when exported", f"on {check['images']} images against {check['against']}; off by at most {off}"),
        ("weights (SHA-256)", str(metadata["model_sha256"])),
        ("made with", ", ".join(f"{name} {number}" for name, number in metadata["versions"].items())),
    ]


def _heat_colours(count: int) -> list[list[int]]:
    """Return the map's colours from 0 to 1, red, green and blue of 255."""
    shades = np.asarray(colormaps[HEAT_COLOURS](np.linspace(0, 1, count)))[:, :3]
    return [[round(255 * float(channel)) for channel in shade] for shade in shades]


def _ramp() -> str:
    """Return the same colours as a CSS gradient."""
    stops = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in _heat_colours(11))
    return f"linear-gradient(90deg, {', '.join(stops)})"


def _read(path: Path) -> bytes:
    """Read a file of an npm package; raise a `PixelCAMError` where it is missing."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise PixelCAMError(
            f"{path}: cannot be read ({error.strerror}); run 'npm ci' in the project's folder"
        ) from error


def _licences(runtime: Path) -> str:
    """Return the licences of what runs in the page, as the engine's Python package has them."""
    version = json.loads(_read(runtime / "package.json"))["version"]
    texts = [
        _text_of_onnxruntime(name) for name in ("LICENSE", "ThirdPartyNotices.txt")
    ]  # the npm package comes without them
    head = (
        f"The page runs onnxruntime-web {version} (MIT licence), which stands packed in files/. What follows is its.\n"
    )
    return "\n".join([head, *texts])


def _text_of_onnxruntime(name: str) -> str:
    files = importlib.metadata.files("onnxruntime") or []
    found = next((file for file in files if file.name == name), None)
    if found is None:
        raise PixelCAMError(f"onnxruntime: its file {name} is missing; install the package again")
    return found.read_text(encoding="utf-8").replace("\r\n", "\n")
