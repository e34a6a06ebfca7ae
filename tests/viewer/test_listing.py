"""Which images a page shows and in which order, on rows whose scores are written down here."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette")

from pipeline.data.manifest import Manifest, ManifestRow, PreparedDomain, Split
from pipeline.viewer.collections import Collection
from pipeline.viewer.listing import Query, orders_of, select

NAMES = ("a10.png", "a9.png", "B1.png", "a2.png")
LABELS = (0, 1, 1, 0)
CLASSES = ("benign", "malignant")


def _row(name: str, class_idx: int) -> ManifestRow:
    return ManifestRow(
        image=name,
        mask="",
        ignore_mask="",
        label=CLASSES[class_idx],
        class_idx=class_idx,
        split=Split.TEST,
        patient="",
        width=1,
        height=1,
        image_sha256="",
        mask_sha256="",
        mask_selectable=False,
    )


@pytest.fixture
def collection() -> Collection:
    rows = tuple(_row(name, class_idx) for name, class_idx in zip(NAMES, LABELS, strict=True))
    return Collection(
        key="test-home",
        title="home, test",
        domain=PreparedDomain("home", CLASSES, None, Manifest(rows, Path())),
        rows=rows,
        numbers={"pixelcam_dice": np.array([0.5, np.nan, 0.9, 0.5]), "disagreement": np.array([0.1, 0.2, 0.3, 0.4])},
        predicted={"pixelcam": ("benign", "benign", "malignant", "")},
    )


def shown(collection: Collection, verdicts: dict[str, str] | None = None, **asked: str) -> list[str]:
    order = select(collection, Query.read(asked), verdicts or {})
    return [collection.rows[place].image for place in order]


def test_names_come_as_people_count_and_scores_with_the_unknown_last(collection: Collection) -> None:
    assert shown(collection) == ["a2.png", "a9.png", "a10.png", "B1.png"]
    assert shown(collection, order="pixelcam_dice") == ["a2.png", "a10.png", "B1.png", "a9.png"], "equal ones by name"
    assert shown(collection, order="pixelcam_dice_best") == ["B1.png", "a2.png", "a10.png", "a9.png"]
    assert shown(collection, order="disagreement") == ["a2.png", "B1.png", "a9.png", "a10.png"]
    assert shown(collection, order="teacher_dice") == shown(collection, order="nonsense") == shown(collection)
    assert set(orders_of(collection)) == {"name", "pixelcam_dice", "pixelcam_dice_best", "disagreement"}


def test_filters_leave_what_was_asked_for(collection: Collection) -> None:
    assert shown(collection, label="malignant") == ["a9.png", "B1.png"]
    assert shown(collection, judged="wrong") == ["a9.png"], "what was not scored is neither right nor wrong"
    assert shown(collection, judged="right") == ["a10.png", "B1.png"]
    assert shown(collection, find="b1") == ["B1.png"]
    verdicts = {"a2.png": "leave_out", "a9.png": "corrected", "elsewhere.png": "leave_out"}
    assert shown(collection, verdicts, verdict="set_aside") == ["a2.png", "a9.png"]
    assert shown(collection, verdicts, verdict="corrected") == ["a9.png"]
    assert shown(collection, verdicts, verdict="not_set_aside") == ["a10.png", "B1.png"]


def test_the_image_that_is_looked_at_keeps_its_place_when_it_is_set_aside(collection: Collection) -> None:
    query = Query(verdict="not_set_aside")
    places = select(collection, query, {"a9.png": "leave_out"}, always=collection.position["a9.png"])
    assert [collection.rows[place].image for place in places] == ["a2.png", "a9.png", "a10.png", "B1.png"]


def test_an_address_says_what_is_asked_for_and_no_more() -> None:
    assert Query().parameters() == ""
    query = Query.read({"find": "a&b=<", "page": "3", "other": "x"})
    assert query.parameters() == "?find=a%26b%3D%3C&page=3"
    assert [Query.read({"page": page}).page for page in ("0", "-1", "x", "1" * 40, "²")] == [1] * 5
