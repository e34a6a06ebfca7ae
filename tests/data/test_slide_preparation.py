import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from slide_files import Picture, glass, square, stained, write_asap, write_slide

from pipeline.data import slide_preparation
from pipeline.data.image_store import SquareReader
from pipeline.data.manifest import Manifest, Split, read_manifest, write_manifest
from pipeline.data.preparation import prepare_domain
from pipeline.data.review import Review, ReviewedImage, Verdict
from pipeline.data.scored_set import ScoredSet
from pipeline.data.slides import read_slides
from pipeline.params.errors import PixelCAMError
from pipeline.params.slides import TissueParams
from pipeline.params.types import SlidesDomain

TISSUE = TissueParams(mpp=8.0, smallest_speck=0.001, largest_hole=0.001)
DOMAIN: dict[str, Any] = {
    "adapter": "slides",
    "table": "slides.csv",
    "classes": ["normal", "tumour"],
    "background_class": "normal",
    "review": None,
    "val_fraction": 0.2,
    "test_fraction": 0.3,
    "adapt_fraction": 0.0,
    "shared_patients": "reject",
    "mpp": 1.0,
    "tile_size": 64,
    "tiles_per_slide": 20,
    "tissue_share": 0.5,
    "lesion_share": 0.5,
    "doubt_share": 0.0,
    "annotation_groups": {"_0": "lesion", "_2": "hole"},
    "seed": 0,
}
TABLE = """slide,label,annotation,patient,split
a.tif,tumour,a.xml,1,train
b.tif,normal,,2,train
c.tif,tumour,c.xml,3,val
d.tif,normal,,4,test
"""
LESION = square(256, 256, 320)  # of level 0: two and a half tiles of 128 a side, from the third one on


@pytest.fixture(scope="module")
def picture() -> Picture:
    return stained(glass(1024, 1152), 128, 128, 768, 896)


@pytest.fixture(scope="module")
def written(picture: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide that shows the picture, to be copied and not changed."""
    return write_slide(tmp_path_factory.mktemp("written") / "a.tif", picture)


@pytest.fixture
def root(tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXELCAM_IMAGES", str(tmp_path / "images"))
    monkeypatch.setattr("pipeline.runtime.cluster.os.cpu_count", lambda: 1)
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in "abcd":
        shutil.copy(written, raw / f"{name}.tif")
    for name in "ac":
        write_asap(raw / f"{name}.xml", {"_0": [LESION]})
    (raw / "slides.csv").write_text(TABLE, encoding="utf-8")
    return raw


def domain(root: Path, **changes: object) -> SlidesDomain:
    return SlidesDomain.model_validate(DOMAIN | {"root": root} | changes)


def prepare(root: Path, **changes: object) -> Manifest:
    return prepare_domain(domain(root, **changes), output=root.parent / "prepared", tissue=TISSUE)


def refuse(root: Path, **changes: object) -> str:
    with pytest.raises(PixelCAMError) as caught:
        prepare(root, **changes)
    assert not (root.parent / "prepared").exists()
    return str(caught.value)


def test_slides_become_tiles(root: Path) -> None:
    manifest = prepare(root)
    assert Counter((row.slide, row.label) for row in manifest.rows) == {
        ("a.tif", "tumour"): 8,  # 2 x 2 whole ones, and 2 on each of two sides of which half is in the lesion
        ("a.tif", "normal"): 12,
        ("b.tif", "normal"): 20,
        ("c.tif", "tumour"): 8,
        ("c.tif", "normal"): 12,
        ("d.tif", "normal"): 20,
    }
    assert {row.split for row in manifest.rows if row.slide == "c.tif"} == {Split.VAL}
    row = next(row for row in manifest.rows if row.label == "tumour")
    assert (row.width, row.height, row.downsample, row.patient) == (64, 64, 2.0, "1")
    assert row.image == f"a_x{row.x}_y{row.y}"
    assert row.mask == "lesions/a.geojson"
    assert read_manifest(root.parent / "prepared/manifest.csv", root=root) == manifest


def test_a_tile_shows_its_slides_class_where_enough_is_annotated(root: Path) -> None:
    manifest = prepare(root, tiles_per_slide=1000)
    tiles = {(row.x, row.y): row.label for row in manifest.rows if row.slide == "a.tif"}
    inside, half = ((256, 256), (256, 384), (384, 256), (384, 384)), ((512, 256), (512, 384), (256, 512), (384, 512))
    expected = {(x, y): "normal" for x in range(128, 1024, 128) for y in range(128, 896, 128)}
    expected |= dict.fromkeys((*inside, *half), "tumour")
    del expected[512, 512]  # a quarter of it is in the lesion
    assert tiles == expected
    assert Counter(tiles.values()) == {"tumour": 8, "normal": 33}


def test_tiles_and_masks_are_read_from_the_slide(root: Path, picture: Picture) -> None:
    manifest = prepare(root)
    rows = tuple(row for row in manifest.rows if row.label == "tumour" and row.slide == "a.tif")
    one = Manifest(rows[:1], manifest.root, manifest.folder)
    tile = SquareReader(one, size=64)[0]
    part = picture[rows[0].y : rows[0].y + 128, rows[0].x : rows[0].x + 128]
    assert np.abs(tile.astype(float) - part.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))).mean() < 8
    (batch,) = ScoredSet(
        Manifest(rows, manifest.root, manifest.folder),
        image_size=64,
        mask_size=64,
        batch_size=9,
        background_class_idx=0,
    )
    for row, mask in zip(rows, batch.masks, strict=True):
        inside = shapely.box(row.x, row.y, row.x + 128, row.y + 128).intersection(shapely.Polygon(LESION)).area
        assert int(mask.sum()) == inside / 4
    assert batch.has_mask.all()


def test_lesions_are_all_kept_whatever_is_drawn(root: Path) -> None:
    manifest = prepare(root, tiles_per_slide=1)
    assert Counter(row.label for row in manifest.rows if row.slide == "a.tif") == {"tumour": 8}
    assert Counter(row.label for row in manifest.rows if row.slide == "b.tif") == {"normal": 1}


def test_a_table_of_slides_tells_what_each_is(root: Path) -> None:
    prepare(root)
    slides = read_slides(root.parent / "prepared")
    assert [(slide.slide, slide.label, slide.split) for slide in slides] == [
        ("a.tif", "tumour", Split.TRAIN),
        ("b.tif", "normal", Split.TRAIN),
        ("c.tif", "tumour", Split.VAL),
        ("d.tif", "normal", Split.TEST),
    ]
    assert (slides[0].mpp, slides[0].width, slides[0].height, slides[0].tiles) == (0.5, 1152, 1024, 20)
    assert slides[0].tissue_mm2 == pytest.approx(768 * 896 * 0.25 / 1e6, rel=0.1)
    assert slides[1].lesions


def test_a_slide_that_was_prepared_is_not_prepared_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(root)
    files = {path: path.read_bytes() for path in (root.parent / "prepared").rglob("*") if path.is_file()}
    monkeypatch.setattr(slide_preparation, "_prepare", lambda _: pytest.fail("it was prepared"))
    assert prepare(root) == first
    assert {path: path.read_bytes() for path in (root.parent / "prepared").rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("changes", [{"seed": 1}, {"tiles_per_slide": 19}, {"mpp": 2.0}])
def test_other_rules_prepare_it_again(root: Path, changes: dict[str, Any]) -> None:
    assert prepare(root) != prepare(root, **changes)


def test_a_slide_that_nobody_annotated_gives_tiles_of_its_class_without_masks(root: Path) -> None:
    (root / "slides.csv").write_text(TABLE.replace("a.xml", ""), encoding="utf-8")
    manifest = prepare(root)
    rows = [row for row in manifest.rows if row.slide == "a.tif"]
    assert {(row.label, row.mask) for row in rows} == {("tumour", "")}
    assert len(rows) == 20


def test_without_a_background_class_the_rest_of_a_slide_is_left_out(root: Path) -> None:
    for name in "bd":
        write_asap(root / f"{name}.xml", {"_0": [LESION]})
    table = TABLE.replace("b.tif,normal,", "b.tif,normal,b.xml").replace("d.tif,normal,", "d.tif,normal,d.xml")
    (root / "slides.csv").write_text(table, encoding="utf-8")
    manifest = prepare(root, background_class=None)
    assert Counter(row.label for row in manifest.rows) == {"normal": 16, "tumour": 16}
    assert all(row.mask for row in manifest.rows)


def test_slides_are_split_by_patient(root: Path) -> None:
    lines = ["slide,label,annotation,patient"]
    for number, name in enumerate("abcdefgh"):
        if not (root / f"{name}.tif").exists():
            (root / f"{name}.tif").write_bytes((root / "b.tif").read_bytes())
        lines.append(
            f"{name}.tif,{'tumour' if name in 'ac' else 'normal'},{name + '.xml' if name in 'ac' else ''},{number // 2}"
        )
    (root / "slides.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest = prepare(root, val_fraction=0.25, test_fraction=0.25, background_class="normal")
    splits: dict[str, set[Split]] = {}
    for row in manifest.rows:
        splits.setdefault(row.patient, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())


def test_a_share_of_the_test_slides_is_for_adapting_and_may_lack_a_class(root: Path) -> None:
    table = TABLE.replace(",train", ",test").replace("a.tif,tumour,a.xml,1,test", "a.tif,tumour,a.xml,1,val")
    (root / "slides.csv").write_text(table, encoding="utf-8")
    manifest = prepare(root, adapt_fraction=0.5)
    splits = {row.slide: row.split for row in manifest.rows}
    assert splits == {"a.tif": Split.VAL, "c.tif": Split.VAL, "b.tif": splits["b.tif"], "d.tif": splits["d.tif"]}
    assert {splits["b.tif"], splits["d.tif"]} == {Split.TRAIN, Split.TEST}
    assert not any(row.mask_selectable for row in manifest.of_split(Split.TRAIN).rows)


def test_a_patient_on_both_sides_is_refused(root: Path) -> None:
    (root / "slides.csv").write_text(TABLE.replace(",4,test", ",1,test"), encoding="utf-8")
    assert "patient '1': is in train and test" in refuse(root)


def test_many_tiles_are_written_as_parquet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = prepare(root)
    monkeypatch.setattr("pipeline.data.manifest.MOST_IN_CSV", 10)
    manifest = prepare(root)
    folder = root.parent / "prepared"
    assert not (folder / "manifest.csv").exists()
    assert read_manifest(folder / "manifest.parquet", root=root) == manifest == few
    write_manifest(manifest.rows, folder / "again.parquet")
    assert (folder / "again.parquet").read_bytes() == (folder / "manifest.parquet").read_bytes()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("a.tif,tumour", "gone.tif,tumour", "gone.tif: there is no such file"),
        ("a.xml", "gone.xml", "gone.xml: there is no such file"),
        ("a.tif,tumour", "a.tif,benign", "a.tif: expected a label out of normal, tumour, got 'benign'"),
        ("a.tif,tumour,a.xml", "a.tif,normal,a.xml", "a.xml: marks lesions, but a.tif is of the background class"),
        ("b.tif", "a.tif", "would have the same name as a.tif"),
        ("a.tif", "../a.tif", "leaves the root"),
        (",train\n", ",training\n", "split must be train, val or test"),
        ("slide,label", "slide,diagnosis", "lacks the column label"),
        ("d.tif,normal,,4,test\n", "", "the test split has no image"),
    ],
)
def test_bad_tables_are_refused(root: Path, before: str, after: str, said: str) -> None:
    assert before in TABLE
    (root / "slides.csv").write_text(TABLE.replace(before, after, 1), encoding="utf-8")
    assert said in refuse(root)


@pytest.mark.parametrize("mpp", ["0", "-1", "wide", "nan", "500"])
def test_an_mpp_that_is_no_length_is_refused(root: Path, mpp: str) -> None:
    table = TABLE.replace("split\n", "split,mpp\n").replace("train\n", "train,\n").replace("val\n", "val,\n")
    (root / "slides.csv").write_text(table.replace("test\n", f"test,{mpp}\n"), encoding="utf-8")
    assert "mpp must be micrometres per pixel" in refuse(root)


def test_every_fault_is_told_at_once(root: Path) -> None:
    (root / "a.tif").write_bytes(b"rubbish")
    write_slide(root / "b.tif", glass(1024, 1024))
    write_slide(root / "d.tif", glass(512, 512), mpp=None)
    said = refuse(root)
    for part in (
        "3 fault(s)",
        "a.tif: is no slide",
        "b.tif: shows no tissue",
        "d.tif: does not say how many micrometres",
    ):
        assert part in said


def test_the_table_says_the_mpp_where_the_slide_does_not(root: Path, picture: Picture) -> None:
    write_slide(root / "d.tif", picture, mpp=None)
    table = TABLE.replace("split\n", "split,mpp\n").replace("train\n", "train,\n").replace("val\n", "val,\n")
    (root / "slides.csv").write_text(table.replace("test\n", "test,0.5\n"), encoding="utf-8")
    manifest = prepare(root)
    assert read_slides(root.parent / "prepared")[3].mpp == 0.5
    assert {row.downsample for row in manifest.rows if row.slide == "d.tif"} == {2.0}


def test_a_wrong_mpp_is_warned_of(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = TABLE.replace("split\n", "split,mpp\n").replace("train\n", "train,\n").replace("val\n", "val,\n")
    (root / "slides.csv").write_text(table.replace("test\n", "test,2.0\n"), encoding="utf-8")
    prepare(root)
    assert "warning: d.tif: nuclei seem to be" in capsys.readouterr().err


def test_what_was_mended_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bow = [(300.0, 300.0), (500.0, 500.0), (500.0, 300.0), (300.0, 500.0)]
    write_asap(root / "a.xml", {"_0": [LESION, bow]})
    prepare(root)
    assert "a.xml: Annotation 1 crosses itself and is mended" in capsys.readouterr().err


def test_a_slide_that_gives_no_tile_is_refused(root: Path) -> None:
    assert "gives no tile of 2048 pixels" in refuse(root, tissue_share=0.99, tile_size=2048)


def test_shares_in_the_wrong_order_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="doubt_share must be below lesion_share"):
        domain(root, doubt_share=0.6)


def test_lesions_are_geojson_that_others_read(root: Path) -> None:
    prepare(root)
    content = json.loads((root.parent / "prepared/lesions/a.geojson").read_text(encoding="utf-8"))
    assert shapely.geometry.shape(content).area == 320**2


def test_a_damaged_parquet_manifest_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.manifest.MOST_IN_CSV", 10)
    prepare(root)
    path = root.parent / "prepared/manifest.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PixelCAMError, match=r"manifest\.parquet: cannot be read as a manifest .*prepare stage again"):
        read_manifest(path, root=root)


def test_slides_and_tiles_are_left_out_and_corrected(root: Path) -> None:
    whole = {row.image: row for row in prepare(root).rows}
    lesion, beside = (
        next(row for row in whole.values() if row.slide == "a.tif" and bool(row.mask) is marked)
        for marked in (True, False)
    )
    verdicts = [
        ("c.tif", Verdict.LEAVE_OUT, ""),
        (lesion.image, Verdict.LEAVE_OUT, ""),
        (beside.image, Verdict.CORRECTED, "tumour"),
    ]
    manifest = prepare_reviewed(root, verdicts)
    expected = {name: row for name, row in whole.items() if row.slide != "c.tif" and name != lesion.image}
    assert {row.image: row for row in manifest.rows} == expected | {
        beside.image: replace(beside, label="tumour", class_idx=1)
    }
    slides = {record.slide: record.tiles for record in read_slides(root.parent / "prepared")}
    assert slides == {"a.tif": 19, "b.tif": 20, "d.tif": 20}
    with pytest.raises(PixelCAMError, match=f"line 2: '{lesion.image}' cannot be of the background class 'normal'"):
        prepare_reviewed(root, [(lesion.image, Verdict.CORRECTED, "normal")])
    with pytest.raises(PixelCAMError, match=r"line 2: there is no image 'e\.tif' in this domain"):
        prepare_reviewed(root, [("e.tif", Verdict.LEAVE_OUT, "")])


def prepare_reviewed(root: Path, verdicts: Sequence[tuple[str, Verdict, str]]) -> Manifest:
    images = {
        image: ReviewedImage(line=line, image=image, verdict=verdict, label=label)
        for line, (image, verdict, label) in enumerate(verdicts, start=2)
    }
    review = Review(root / "review.csv", images)
    return prepare_domain(domain(root), output=root.parent / "prepared", review=review, tissue=TISSUE)
