"""Readers of what others wrote, fed with damaged files: whatever the bytes, a result or a `PixelCAMError`.

A few examples each by default, always the same; PIXELCAM_FUZZ=10000 tries as many, other ones at every run.
"""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_data import glas_domain, splits_domain, table_domain, write_glas, write_split
from tiny import ROOT

from pipeline.data.adapters.glas import list_glas
from pipeline.data.adapters.splits import list_splits
from pipeline.data.adapters.table import list_table
from pipeline.data.images import read_image, read_mask
from pipeline.data.manifest import Manifest, ManifestRow, Split, read_manifest, write_manifest
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.pseudo_labels.store import PseudoLabelStore, StoredImage, write_store

EXAMPLES = int(os.environ.get("PIXELCAM_FUZZ", "40"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="PIXELCAM_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)

# What has upset readers before, theirs and ours.
TOKENS = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in (
        *(",", ";", '"', "'", "\r", "\n", "\r\n", "\0", "\t", "\ufeff", "\x1b", "\ud800", "..", "../", "/", "\\", "C:"),
        *(
            "-1",
            "0",
            "9" * 5000,
            "²",
            "٣",
            "1e9",
            "NaN",
            "inf",
            "None",
            "True",
            "[",
            "{",
            "}",
            "null",
            "&a",
            "*a",
            "<<: ",
        ),
        *("a" * 300, "b" * 140_000, "!!python/none", "train", "images/", "- ", ": ", "? ", "|\n", "2026-13-45"),
    )
)
Edit = tuple[str, float, bytes]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(("insert", "replace", "delete", "repeat", "cut", "flip")),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.sampled_from(TOKENS), st.binary(min_size=1, max_size=8)),
    ),
    min_size=1,
    max_size=6,
)


def _mutate(content: bytes, edits: list[Edit]) -> bytes:
    """Return a copy of a good file's content, damaged at some places."""
    for kind, share, token in edits:
        at = int(share * len(content))
        before, after = content[:at], content[at:]
        length = len(token)
        content = {
            "insert": before + token + after,
            "replace": before + token + after[length:],
            "delete": before + after[length:],
            "repeat": before + after[: 20 * length] + after,
            "cut": before,
            "flip": before
            + bytes(byte ^ mask for byte, mask in zip(after[:length], token, strict=False))
            + after[length:],
        }[kind]
    return content


def _refuses_or_reads(read: Callable[[], object]) -> object:
    """Return what a reader makes of its file, None where it refuses it; any other exception fails the test."""
    with suppress(PixelCAMError):
        return read()
    return None


def _inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not path or not (parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path)


def _check_listings(found: object) -> None:
    assert found is None or isinstance(found, list)
    for listing in found or []:
        assert listing.image
        assert all(_inside(path) for path in (listing.image, listing.mask, listing.ignore_mask))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# --- manifest -------------------------------------------------------------------------------------------------------


def _good_manifest(folder: Path) -> bytes:
    row = ManifestRow(
        image="images/a, b.png",
        mask="masks/ä.png",
        ignore_mask="",
        label="benign",
        class_idx=0,
        split=Split.TRAIN,
        patient="007",
        width=6,
        height=4,
        image_sha256="0" * 64,
        mask_sha256="1" * 64,
        mask_selectable=True,
    )
    write_manifest([row, row, row], folder / "good.csv")
    return (folder / "good.csv").read_bytes()


@fuzz
@given(edits=EDITS)
def test_manifest(folder: Path, edits: list[Edit]) -> None:
    path = folder / "manifest.csv"
    path.write_bytes(_mutate(_good_manifest(folder), edits))
    found = _refuses_or_reads(lambda: read_manifest(path, root=None))
    for row in found.rows if isinstance(found, Manifest) else ():
        assert row.image
        assert _inside(row.image)
        assert _inside(row.mask)
        assert row.width > 0
        assert row.class_idx >= 0


# --- tables and split files -----------------------------------------------------------------------------------------


@fuzz
@given(name=st.sampled_from(("class_labels", "image_ids", "image_sizes", "localization")), edits=EDITS)
def test_split_files(folder: Path, name: str, edits: list[Edit]) -> None:
    split = folder / "splits/folds/test"
    write_split(split, labels={"a.png": 1, "b/c.png": 0}, masks={"a.png": "m/a.png,", "b/c.png": "m/c.png,m/i.png"})
    path = split / f"{name}.txt"
    path.write_bytes(_mutate(path.read_bytes(), edits))
    domain = splits_domain(folder / "splits", splits=Path("folds"))
    _check_listings(_refuses_or_reads(lambda: list_splits(domain)))


@fuzz
@given(edits=EDITS)
def test_table(folder: Path, edits: list[Edit]) -> None:
    good = 'image,label,mask,patient,split\r\na.png,benign,m/a.png,P1,train\r\n"b, c.png",malignant,,"P""2",val\r\n'
    (folder / "table.csv").write_bytes(_mutate(good.encode(), edits))
    _check_listings(_refuses_or_reads(lambda: list_table(table_domain(folder))))


@pytest.fixture(scope="module")
def glas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    root = tmp_path_factory.mktemp("glas")
    write_glas(root)
    return root, (root / "Grade.csv").read_bytes()


@fuzz
@given(edits=EDITS)
def test_grades(glas: tuple[Path, bytes], edits: list[Edit]) -> None:
    root, good = glas
    (root / "Grade.csv").write_bytes(_mutate(good, edits))
    _check_listings(_refuses_or_reads(lambda: list_glas(glas_domain(root))))


@fuzz
@given(edits=EDITS)
def test_params(folder: Path, edits: list[Edit]) -> None:
    path = folder / "params.yaml"
    path.write_bytes(_mutate((ROOT / "params.yaml").read_bytes(), edits))
    _refuses_or_reads(lambda: load_params(path))


# --- images and masks -----------------------------------------------------------------------------------------------


def _good_images() -> Iterator[bytes]:
    """Yield images and masks in each format, and in the modes and with the extras that it knows."""
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    images = {mode: Image.fromarray(values).convert(mode) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK")}
    images["I;16"] = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
    exif = Image.Exif()
    exif[0x0112] = 1
    for image_format in ("PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG", "JPEG2000"):
        for image in images.values():
            for extras in (
                {},
                {"exif": exif},
                {"compression": "tiff_lzw"},
                {"save_all": True, "append_images": [image]},
            ):
                buffer = io.BytesIO()
                with suppress(OSError, ValueError, KeyError):  # a format that lacks the mode
                    image.save(buffer, format=image_format, **extras)
                    yield buffer.getvalue()


GOOD_IMAGES = sorted(set(_good_images()), key=lambda content: (len(content), content))


def _png(width: int, height: int, depth: int, colour: int, interlaced: bool, rows: bytes, extra: bytes) -> bytes:
    """Return a PNG whose checksums are right, so that damage gets past them."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    chunks = (extra and chunk(extra[:4].ljust(4, b"t"), extra[4:])) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + chunk(b"IEND", b"")


CHUNKS = st.sampled_from(
    (b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"acTL", b"fcTL", b"iTXt", b"zTXt", b"gAMA", b"pHYs", b"abcd")
)
PNGS = st.builds(
    _png,
    width=st.integers(0, 2**31) | st.integers(0, 9),
    height=st.integers(0, 9),
    depth=st.sampled_from((1, 2, 4, 8, 16)) | st.integers(0, 255),
    colour=st.integers(0, 7),
    interlaced=st.booleans(),
    rows=st.binary(max_size=200),
    extra=st.builds(bytes.__add__, CHUNKS, st.binary(max_size=40)) | st.just(b""),
)
MUTATED_IMAGES = st.builds(_mutate, st.sampled_from(GOOD_IMAGES), EDITS)


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse large images earlier, so that a header which claims one costs no time."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250_000)


@fuzz
@pytest.mark.usefixtures("low_limit")
@pytest.mark.filterwarnings("ignore")
@given(content=MUTATED_IMAGES | PNGS)
def test_images_and_masks(folder: Path, content: bytes) -> None:
    path = folder / "image.png"
    path.write_bytes(content)
    mask = _refuses_or_reads(lambda: read_mask(path))
    if mask is not None:
        assert isinstance(mask, np.ndarray)
        assert (mask.ndim, mask.dtype) == (2, np.bool_)
    image = _refuses_or_reads(lambda: read_image(path))
    if image is not None:
        assert isinstance(image, np.ndarray)
        assert (image.ndim, image.dtype, image.shape[-1]) == (3, np.uint8, 3)


# --- store ----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "labels.zarr"
    generator = np.random.default_rng(0)
    images = [
        StoredImage(
            generator.choice(np.array([0, 1, 255], dtype=np.uint8), (6, 5)),
            np.full((2, 2), 0.5, np.float16),
            number % 2,
        )
        for number in range(3)
    ]
    attributes: dict[str, Any] = {"image_ids": ["a.png", "b.png", "c.png"], "classes": ["x", "y"]}
    write_store(path, images, image_count=3, label_size=(6, 5), cam_size=(2, 2), attributes=attributes)
    return path


def _read_all(path: Path) -> list[StoredImage]:
    found = PseudoLabelStore(path)
    found.verify()
    found.class_idx()
    found.describe()
    return [found.read(image_id) for image_id in found.image_ids]


def _check_store(path: Path, file: Path, damaged: bytes) -> None:
    intact = file.read_bytes()
    file.write_bytes(damaged)
    try:
        found = _refuses_or_reads(lambda: _read_all(path))
    finally:
        file.write_bytes(intact)
    for image in found if isinstance(found, list) else []:
        assert image.labels.dtype == np.uint8
        assert set(np.unique(image.labels)) <= {0, 1, 255}
        assert not np.isnan(image.cam).any()


@fuzz
@given(choice=st.integers(0, 10**6), edits=EDITS)
def test_store_with_damaged_files(store: Path, choice: int, edits: list[Edit]) -> None:
    files = sorted(file for file in store.rglob("*") if file.is_file())
    file = files[choice % len(files)]
    _check_store(store, file, _mutate(file.read_bytes(), edits))


def _places(values: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - any JSON
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, inner in items:
        yield (*way, key)
        yield from _places(inner, (*way, key))


@fuzz
@given(choice=st.integers(0, 10**6), place=st.floats(0, 1, exclude_max=True), value=JSON, remove=st.booleans())
def test_store_with_other_descriptions(store: Path, choice: int, place: float, value: object, remove: bool) -> None:
    files = sorted(store.rglob("zarr.json"))
    file = files[choice % len(files)]
    values = json.loads(file.read_text(encoding="utf-8"))
    ways = list(_places(values))
    *way, last = ways[int(place * len(ways))]
    inner = values
    for key in way:
        inner = inner[key]
    if remove:
        del inner[last]
    else:
        inner[last] = value
    _check_store(store, file, json.dumps(values).encode())
