"""The method in one picture: five parts of one image, the labels cut as for training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_params

from pipeline.report.overlays import heat_overlay, label_overlay
from pipeline.report.parts import GalleryImage, ModelView
from pipeline.report.pictures import draw_overlays, draw_overview


def shown(brightness: int) -> GalleryImage:
    heat = np.linspace(0, 1, 16 * 16, dtype=np.float32).reshape(16, 16)
    view = ModelView(map=heat, predicted_class="benign", dice=None, false_positive_share=None)
    other = replace(view, map=heat[::-1].copy())
    image = np.full((256, 256, 3), brightness, dtype=np.uint8)
    return GalleryImage(
        name="a.png", label="benign", reason="median of 3", image=image, mask=None, teacher=view, pixelcam=other
    )


@pytest.mark.parametrize("rule", ["threshold", "percentile"])
def test_middle_image_is_shown_with_cam_labels_and_map(rule: str) -> None:
    values = {
        "foreground_rule": rule,
        "foreground_threshold": 0.75,
        "foreground_fraction": 0.25,
        "background_fraction": 0.25,
        "erosion": 2,
    }
    params = tiny_params(Path(), {f"extract_pseudo_labels.{name}": value for name, value in values.items()})
    picture = draw_overview([shown(10), shown(200), shown(90)], params)
    gap = 8
    assert picture.shape == (256 + 2 * gap, 5 * 256 + 6 * gap, 3)
    parts = [picture[gap:-gap, gap + k * (256 + gap) :][:, :256] for k in range(5)]
    middle = shown(200)
    assert np.array_equal(parts[0], middle.image)
    assert np.array_equal(parts[1], middle.image), "no mask, no contour"
    assert np.array_equal(parts[2], heat_overlay(middle.image, heat=middle.teacher.map))
    assert np.array_equal(parts[4], heat_overlay(middle.image, heat=middle.pixelcam.map))
    all_ignored = label_overlay(middle.image, labels=np.full((256, 256), 255, dtype=np.uint8))
    changed = (parts[3] != all_ignored).any(axis=2)
    assert not changed[100:160].any(), "the middle of a ramp is neither foreground nor background"
    assert changed[:40].all(), "the lowest quarter is background"
    assert changed[-40:].all(), "the highest quarter is foreground"


def test_a_domain_s_sheet_shows_six_images_at_most_from_the_first_to_the_last() -> None:
    gallery = [shown(brightness) for brightness in range(10, 131, 10)]
    assert draw_overlays(gallery[:2]).shape == (2 * 264 + 8, 3 * 264 + 8, 3)
    sheet = draw_overlays(gallery)
    assert sheet.shape == (6 * 264 + 8, 3 * 264 + 8, 3)
    assert [int(sheet[8 + row * 264, 8, 0]) for row in (0, 5)] == [10, 130]
    first = gallery[0]
    assert np.array_equal(sheet[8:264, 272:528], heat_overlay(first.image, heat=first.teacher.map))
    assert np.array_equal(sheet[8:264, 536:792], heat_overlay(first.image, heat=first.pixelcam.map))
