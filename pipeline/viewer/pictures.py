"""Pictures that pages ask for: thumbnails, and the layers of one image, each a file of its own that the browser stacks.

Layers need not be as large as the image: a page stretches all of them to one frame.
"""

from io import BytesIO
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.manifest import Manifest, ManifestRow, PreparedDomain
from pipeline.data.maps import resize_labels
from pipeline.data.pixels import read_row, read_row_mask, tile_sha256
from pipeline.report.overlays import colour_labels, colour_map, fit, outline_layer
from pipeline.viewer.cache import Cache

THUMBNAIL_SIDE: Final = 320  # pixels; twice what a page gives them, for dense screens
LARGEST_SIDE: Final = 2048  # pixels of an image on its page
MAP_SIDE: Final = 512  # pixels of a map on its page
JPEG: Final = "image/jpeg"
PNG: Final = "image/png"

Picture = NDArray[np.uint8]  # (H, W, 3), or with transparency (H, W, 4)


def pixels_sha256(row: ManifestRow) -> str:
    """Return what the pixels of an image are told by, a checksum that the manifest gives."""
    return tile_sha256(row) if row.slide else row.image_sha256


def thumbnail(manifest: Manifest, row: ManifestRow, cache: Cache) -> bytes:
    """Return an image small, as JPEG, made once."""
    key = f"{pixels_sha256(row)} {THUMBNAIL_SIDE}"
    return cache.get("thumbnails", key, lambda: _jpeg(fit(read_row(manifest, row), side=THUMBNAIL_SIDE), quality=85))


def image_layer(manifest: Manifest, row: ManifestRow) -> tuple[bytes, str]:
    """Return an image as its page shows it, and its media type: large ones are shrunk, and compressed with loss."""
    image = read_row(manifest, row)
    if image.shape[0] * image.shape[1] <= 1_000_000:
        return as_png(image), PNG
    return _jpeg(fit(image, side=LARGEST_SIDE), quality=92), JPEG


def map_layer(heat: NDArray[np.float32], row: ManifestRow) -> bytes:
    """Return a map (h, w) in [0, 1] in its colours, as PNG."""
    return as_png(colour_map(heat, size=_size_within(row, MAP_SIDE)))


def labels_layer(labels: NDArray[np.uint8]) -> bytes:
    """Return pseudo-labels (h, w) in their colours, ignored pixels transparent, as PNG."""
    return as_png(colour_labels(labels, size=(labels.shape[0], labels.shape[1])))


def mask_layer(domain: PreparedDomain, row: ManifestRow) -> bytes | None:
    """Return the outline of an image's mask as PNG, transparent elsewhere; None where there is no mask."""
    mask = read_truth(domain, row)
    return None if mask is None else as_png(outline_layer(mask, size=_size_within(row, LARGEST_SIDE // 2)))


def read_truth(domain: PreparedDomain, row: ManifestRow, *, side: int | None = None) -> NDArray[np.bool_] | None:
    """Return where an image shows its region of interest.

    Args:
        domain: the image's.
        row: the image.
        side: of a square, in pixels, as maps and labels are compared at; None leaves the mask as large as it is.

    Returns:
        bool (H, W), or (side, side); nothing is marked of the background class; None where nobody knows.
    """
    if row.mask:
        mask = read_row_mask(domain.manifest, row, row.mask)
    elif row.class_idx == domain.background_class_idx:
        mask = np.zeros((row.height, row.width), dtype=np.bool_)
    else:
        return None
    return mask if side is None else resize_labels(torch.from_numpy(mask), (side, side)).numpy()


def as_png(picture: Picture) -> bytes:
    """Return a picture as PNG, written fast rather than small."""
    file = BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _jpeg(picture: Picture, *, quality: int) -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=quality)
    return file.getvalue()


def _size_within(row: ManifestRow, side: int) -> tuple[int, int]:
    """Return an image's height and width, shrunk so that neither is above `side`."""
    scale = min(1.0, side / max(row.height, row.width))
    return max(1, round(row.height * scale)), max(1, round(row.width * scale))
