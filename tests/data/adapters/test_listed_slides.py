"""Slides as tables list them: rendered ones with the table that would list them again, and which mpp can be meant."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.adapters import slides
from pipeline.data.adapters.slides import ListedSlide, list_slides, render_slides
from pipeline.data.manifest import Split
from pipeline.params.errors import PixelCAMError
from pipeline.params.types import SlidesDomain, SyntheticSlidesDomain

TILES: dict[str, Any] = {
    "classes": ["normal", "tumour"],
    "background_class": "normal",
    "review": None,
    "annotation_groups": {"_0": "lesion"},
    "mpp": 1.0,
    "tile_size": 64,
    "tiles_per_slide": 20,
    "tissue_share": 0.5,
    "lesion_share": 0.5,
    "doubt_share": 0.0,
    "seed": 5,
}
PAINTED = {"adapter": "synthetic_slides", "slides": {"train": 3, "val": 1, "test": 1}, "slide_size": 2048}
LISTED: dict[str, Any] = {
    "adapter": "slides",
    "table": "slides.csv",
    "adapt_fraction": 0.0,
    "val_fraction": 0.0,
    "test_fraction": 0.0,
    "shared_patients": "reject",
}


def listed_domain(root: Path, **changes: object) -> SlidesDomain:
    return SlidesDomain.model_validate({**TILES, **LISTED, "root": root, **changes})


def test_rendered_slides_alternate_and_leave_a_table_that_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[tuple[object, ...]] = []

    def note(slide: Path, annotation: Path | None, **options: object) -> None:
        assert slide.parent.is_dir()
        rendered.append((slide, annotation, *options.values()))

    def one_by_one(work: Callable[[Any], None], items: Sequence[Any], **_options: object) -> Iterator[None]:
        yield from map(work, items)

    monkeypatch.setattr(slides, "render_slide", note)
    monkeypatch.setattr(slides, "side_by_side", one_by_one)
    found = render_slides(SyntheticSlidesDomain.model_validate({**TILES, **PAINTED}), folder=tmp_path, scheduler=None)
    assert [(each.label, each.split, each.patient, bool(each.annotation)) for each in found] == [
        ("tumour", Split.TRAIN, "train_000", True),
        ("normal", Split.TRAIN, "train_001", False),
        ("tumour", Split.TRAIN, "train_002", True),
        ("tumour", Split.VAL, "val_000", True),
        ("tumour", Split.TEST, "test_000", True),
    ]
    folder = tmp_path / "slides"
    assert rendered == [
        (folder / "train_000.tif", folder / "train_000.xml", 2048, True, 5, 0),
        (folder / "train_001.tif", None, 2048, False, 5, 1),
        (folder / "train_002.tif", folder / "train_002.xml", 2048, True, 5, 2),
        (folder / "val_000.tif", folder / "val_000.xml", 2048, True, 5, 1000),
        (folder / "test_000.tif", folder / "test_000.xml", 2048, True, 5, 2000),
    ]
    assert list_slides(listed_domain(tmp_path, table="slides/slides.csv")) == found
    header = (folder / "slides.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "slide,label,annotation,patient,split"


def mpp_of(text: str, root: Path) -> float | None:
    (root / "slides.csv").write_text(f"slide,label,mpp\na.tif,tumour,{text}\n", encoding="utf-8")
    (found,) = list_slides(listed_domain(root))
    assert found == ListedSlide(
        slide="a.tif", label="tumour", annotation="", patient="", split=Split.TRAIN, mpp=found.mpp
    )
    return found.mpp


def test_an_mpp_is_from_a_hundredth_of_a_micrometre_to_a_hundred_of_them(tmp_path: Path) -> None:
    assert [mpp_of(text, tmp_path) for text in ("0.01", "0.25", "100", "")] == [0.01, 0.25, 100, None]
    for text in ("0.0099", "100.01", "nan", "a quarter"):
        with pytest.raises(PixelCAMError, match="mpp must be micrometres per pixel"):
            mpp_of(text, tmp_path)
