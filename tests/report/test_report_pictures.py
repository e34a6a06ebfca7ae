"""The page's pictures: as fine as their share of the page allows, and layers that fit over each other."""

from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.report.parts import GalleryImage, ModelView
from pipeline.report.pictures import (
    bytes_per_image,
    draw_overlays,
    fit_of,
    gallery_case,
    image_uri,
)


def opened(uri: str) -> Image.Image:
    return Image.open(BytesIO(b64decode(uri.split(",")[1])))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("most_bytes", [4_000, 8_000, 24_000])
def test_an_image_takes_no_more_than_its_share(most_bytes: int) -> None:
    """Smoothed noise is about as hard to compress as tissue."""
    tissue = np.asarray(Image.fromarray(noise(200, 300)).resize((900, 600), Image.Resampling.BICUBIC))
    uri = image_uri(tissue, most_bytes=most_bytes)
    assert most_bytes / 4 < len(b64decode(uri.split(",")[1])) <= most_bytes


def test_an_image_beyond_all_bounds_is_as_coarse_as_can_be() -> None:
    picture = opened(image_uri(noise(300, 600), most_bytes=10))
    assert picture.size == (128, 64)


def test_an_easy_image_stays_fine() -> None:
    assert opened(image_uri(np.full((500, 1000, 3), 200, dtype=np.uint8), most_bytes=8_000)).size == (320, 160)


def test_500_images_leave_room_for_the_rest_of_10_mb() -> None:
    # Per image besides: two maps, an outline, and words, 3.5 kB as base64; measured on the page of a whole run.
    assert 500 * (bytes_per_image(500) * 4 / 3 + 3_500 + 1_500) < 9_500_000
    assert [bytes_per_image(count) for count in (0, 12, 500, 10_000)] == [24_000, 24_000, 9_200, 460]


def test_layers_fit_over_the_image() -> None:
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[:, 2:] = 1
    view = ModelView(map=heat, predicted_class="benign", dice=0.5, false_positive_share=0.25)
    mask = np.zeros((8, 16), dtype=np.bool_)
    mask[2:6, 4:12] = True
    shown = GalleryImage(
        name="a.png", label="benign", reason="", image=noise(400, 800), mask=mask, teacher=view, pixelcam=view
    )
    case = gallery_case(shown, domain="colon", most_bytes=8_000)
    assert (case.width, case.height) == (320, 160)
    outline = np.asarray(opened(case.outline).convert("RGBA"))
    assert outline.shape == (128, 256, 4)
    rows, columns = np.nonzero(outline[..., 3] == 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 95, 64, 191)
    assert not outline[60:68, 100:150, 3].any(), "the inside is bare"
    colours = np.asarray(opened(case.layers[0].uri).convert("RGB")).astype(int)
    assert np.abs(colours[40, 2] - (68, 1, 84)).max() < 25, "viridis at 0, give or take the compression"
    assert np.abs(colours[40, -3] - (253, 231, 37)).max() < 25


def test_the_class_of_each_pixel_is_a_layer_and_a_picture_of_its_own() -> None:
    classes = np.zeros((4, 4), dtype=np.uint8)
    classes[:, 2:] = 2
    view = ModelView(map=np.zeros((4, 4), np.float32), predicted_class="benign", dice=0.5, false_positive_share=0.25)
    shown = GalleryImage(
        name="a.png", label="benign", reason="", image=noise(64, 64), mask=None, teacher=view, pixelcam=view
    )
    with_classes = replace(shown, pixelcam=replace(view, classes=classes))
    assert len(gallery_case(shown, domain="colon", most_bytes=8_000).layers) == 2
    layer = gallery_case(with_classes, domain="colon", most_bytes=8_000).layers[2]
    assert layer.title == "PixelCAM's classes"
    colours = np.asarray(opened(layer.uri).convert("RGB"))
    assert [colours[64, column].tolist() for column in (4, -4)] == [[68, 1, 84], [86, 180, 233]]
    assert draw_overlays([with_classes]).shape[1] > draw_overlays([shown]).shape[1]


@pytest.mark.parametrize(
    ("dice", "false_positive_share", "expected"), [(0.75, 0.5, 0.75), (None, 0.25, 0.75), (None, None, None)]
)
def test_the_fit_is_dice_or_what_is_left_unmarked(
    dice: float | None, false_positive_share: float | None, expected: float | None
) -> None:
    heat = np.zeros((2, 2), dtype=np.float32)
    view = ModelView(map=heat, predicted_class="benign", dice=dice, false_positive_share=false_positive_share)
    assert fit_of(view) == expected
