"""A store in words and as a contact sheet: shares by hand, rows evenly over the store, with and without images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import Run

from pipeline.params.errors import PixelCAMError
from pipeline.pseudo_labels.store import PseudoLabelStore, StoredImage, write_store
from pipeline.report.overlays import BACKGROUND_COLOUR, FOREGROUND_COLOUR, Picture, describe_store, write_label_sheet


def _store(
    path: Path, rows: Sequence[tuple[int, int]], *, side: int = 16, attributes: Mapping[str, object] | None = None
) -> PseudoLabelStore:
    """Write a store whose images each have one class and one label, with the CAM 1 on the left."""
    cam = np.zeros((4, 4), dtype=np.float16)
    cam[:, :2] = 1
    write_store(
        path,
        [StoredImage(np.full((side, side), label, dtype=np.uint8), cam, class_idx) for class_idx, label in rows],
        image_count=len(rows),
        label_size=(side, side),
        cam_size=(4, 4),
        attributes={
            "image_ids": [f"images/{number}.png" for number in range(len(rows))],
            "classes": ["benign", "malignant"],
            "domain": "colon",
            "background_class": None,
            "foreground_threshold": 0.5,
            "background_fraction": 0.07,
            **(attributes or {}),
        },
    )
    return PseudoLabelStore(path)


def test_the_description_says_size_provenance_and_shares(tmp_path: Path) -> None:
    described = dict(describe_store(_store(tmp_path / "store", [(0, 1), (0, 0), (1, 255), (1, 255)])))
    assert described["images"] == "4"
    assert described["domain"] == "colon"
    assert described["schema_version"] == "2"
    assert described["background_class"] == "none"
    assert described["encoder"] == "not said"
    assert described["labels, all (4 images)"] == "background 25.0%, foreground 25.0%, ignore 50.0%"
    assert described["labels, benign (2 images)"] == "background 50.0%, foreground 50.0%, ignore 0.0%"
    assert described["labels, malignant (2 images)"] == "background 0.0%, foreground 0.0%, ignore 100.0%"


def test_a_store_as_extracted_says_all_that_is_shown(finished: Run) -> None:
    described = dict(describe_store(PseudoLabelStore(finished.store)))
    assert described["cam_symmetries"] == "2"
    assert "not said" not in described.values()


def test_a_class_without_images_has_no_share(tmp_path: Path) -> None:
    described = dict(describe_store(_store(tmp_path / "store", [(0, 1)])))
    assert described["labels, malignant (0 images)"] == "background 0.0%, foreground 0.0%, ignore 0.0%"


@pytest.mark.parametrize(
    ("attributes", "rule"),
    [
        # As the first stores have it, which know no other rule.
        ({}, "foreground is where the map is at least 0.5, background the 7% of each image where it is lowest"),
        (
            {"foreground_rule": "threshold", "foreground_fraction": 0.2, "erosion": 1},
            "foreground is where the map is at least 0.5, background the 7% of each image where it is lowest; both "
            "lose 1 pixel at their edges",
        ),
        (
            {"foreground_rule": "otsu", "foreground_fraction": 0.2, "erosion": 0, "background_class": "benign"},
            "foreground is where the map is above Otsu's threshold of the image, background the 7% of each image where "
            "it is lowest; images of benign are background throughout",
        ),
        (
            {"foreground_rule": "percentile", "foreground_fraction": 0.125, "erosion": 3},
            "foreground is the 12.5% of each image where the map is highest, background the 7% of each image where it "
            "is lowest; both lose 3 pixels at their edges",
        ),
    ],
)
def test_the_description_says_by_which_rule(tmp_path: Path, attributes: dict[str, object], rule: str) -> None:
    store = _store(tmp_path / "store", [(0, 1)], attributes=attributes)
    assert dict(describe_store(store))["rule"] == rule


def _sheet(store: PseudoLabelStore, path: Path, *, count: int, images: Path | None = None) -> Picture:
    write_label_sheet(store, path, count=count, images=images)
    assert [other.name for other in path.parent.iterdir() if other.name.startswith(".")] == []
    return np.asarray(Image.open(path).convert("RGB"))


def test_labels_appear_in_their_colours(tmp_path: Path) -> None:
    # Two captions of 24 pixels and a gap of 2, then cells of 64 pixels: the CAM, a gap, the labels.
    cells = {
        label: _sheet(_store(tmp_path / name, [(0, label)], side=64), tmp_path / f"{name}.png", count=1)[50:114, 68:132]
        for label, name in ((0, "background"), (1, "foreground"), (255, "ignore"))
    }
    assert all(len(np.unique(cell.reshape(-1, 3), axis=0)) == 1 for cell in cells.values())
    for label, colour in ((0, BACKGROUND_COLOUR), (1, FOREGROUND_COLOUR)):
        # Three quarters of the colour on one quarter of white ground.
        assert np.abs(cells[label][0, 0] - (0.75 * np.array(colour) + 0.25 * 255)).max() <= 1
    assert (cells[255] == 255).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_image_adds_a_row(tmp_path: Path, count: int) -> None:
    store = _store(tmp_path / "store", [(0, 1)] * 3, side=64)
    heights = [_sheet(store, tmp_path / f"{number}.png", count=number).shape[0] for number in (count, count + 1, 99)]
    all_three = heights[2]
    assert heights[0] <= heights[1] <= all_three
    assert (heights[0] < all_three) == (count < 3)


def test_rows_are_spread_over_the_store(tmp_path: Path) -> None:
    # Of five images the first and the last are shown, which alone are foreground.
    rows = [(0, 1), (0, 255), (0, 255), (0, 255), (0, 1)]
    two = _sheet(_store(tmp_path / "a", rows, side=64), tmp_path / "a.png", count=2)
    same = _sheet(_store(tmp_path / "b", [(0, 1)] * 5, side=64), tmp_path / "b.png", count=2)
    assert np.array_equal(two, same)


def test_images_are_shown_beside_their_labels(tmp_path: Path) -> None:
    (tmp_path / "root/images").mkdir(parents=True)
    Image.new("RGB", (90, 60), (200, 30, 60)).save(tmp_path / "root/images/0.png")
    sheet = _sheet(_store(tmp_path / "store", [(0, 1)]), tmp_path / "sheet.png", count=1, images=tmp_path / "root")
    assert (sheet == (200, 30, 60)).all(axis=2).sum() == 90 * 60


def test_a_missing_image_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    store = _store(tmp_path / "store", [(0, 1)])
    with pytest.raises(PixelCAMError, match=r"nowhere/images/0\.png: does not exist"):
        write_label_sheet(store, tmp_path / "sheet.png", count=1, images=tmp_path / "nowhere")
    assert not (tmp_path / "sheet.png").exists()


def test_two_sheets_have_the_same_bytes(tmp_path: Path) -> None:
    store = _store(tmp_path / "store", [(0, 1), (1, 0)])
    for name in ("1.png", "2.png"):
        write_label_sheet(store, tmp_path / name, count=2, images=None)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
