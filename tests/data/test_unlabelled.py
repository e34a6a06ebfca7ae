"""Images without labels: what they cannot hold, where they come from, and what is no image."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from imports import ROOT
from PIL import Image
from tiny import Run, make_row, prepare_domains, write_images

from pipeline.data.manifest import ManifestRow, Split, read_domain, read_manifest, write_manifest
from pipeline.data.unlabelled import UnlabelledImage, UnlabelledImages, read_unlabelled, unlabelled_files
from pipeline.params.config import load_params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptedTo
from pipeline.runtime.files import sha256_of

TELLING = {"label", "class_idx", "mask", "ignore_mask", "mask_sha256", "mask_selectable", "split"}
TILE = UnlabelledImage(
    image="a_x0_y4",
    patient="P1",
    width=6,
    height=4,
    image_sha256="0" * 64,
    slide="a.tif",
    x=2,
    y=4,
    downsample=2.5,
    slide_sha256="1" * 64,
)


def picture(path: Path, value: int, *, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)
    return path


def test_there_is_no_place_for_a_label_or_a_mask() -> None:
    names = {field.name for field in fields(UnlabelledImage)}
    assert names == {field.name for field in fields(ManifestRow)} - TELLING
    assert not hasattr(TILE, "__dict__")


def test_labels_come_from_elsewhere_and_all_else_is_kept(tmp_path: Path) -> None:
    images = UnlabelledImages((TILE, replace(TILE, x=9), replace(TILE, x=17)), tmp_path, tmp_path / "prepared")
    manifest = images.labelled([1, -1, 0], classes=("normal", "tumour"))
    assert manifest.root == tmp_path
    assert manifest.folder == tmp_path / "prepared"
    assert [(row.class_idx, row.label) for row in manifest.rows] == [(1, "tumour"), (0, "normal"), (0, "normal")]
    assert manifest.rows[0] == ManifestRow(
        image="a_x0_y4",
        mask="",
        ignore_mask="",
        label="tumour",
        class_idx=1,
        split=Split.TRAIN,
        patient="P1",
        width=6,
        height=4,
        image_sha256="0" * 64,
        mask_sha256="",
        mask_selectable=False,
        slide="a.tif",
        x=2,
        y=4,
        downsample=2.5,
        slide_sha256="1" * 64,
    )
    with pytest.raises(ValueError, match="shorter"):
        images.labelled([1, 1], classes=("normal", "tumour"))


@pytest.mark.parametrize(
    ("adapted_to", "splits"),
    [(AdaptedTo.TRAIN_AND_VAL, [Split.TRAIN, Split.VAL]), (AdaptedTo.TEST, [Split.TEST])],
)
def test_the_asked_splits_of_a_domain_are_read(started: Run, adapted_to: AdaptedTo, splits: list[Split]) -> None:
    prepare_domains(started)
    params, folder = load_params(started.params), started.prepared / "home"
    prepared = read_domain("home", params, folder).manifest
    domain = read_unlabelled("home", params, folder, adapted_to=adapted_to)
    assert (domain.name, domain.classes, domain.background_class_idx) == ("home", ("benign", "malignant"), None)
    assert domain.images.root == started.root / "raw/home"
    expected = [row.image for split in splits for row in prepared.of_split(split).rows]
    assert [row.image for row in domain.images.rows] == expected
    assert len(domain.images) == len(expected) > 0
    row = prepared.of_split(splits[0]).rows[0]
    assert domain.images.labelled([-1] * len(expected), classes=domain.classes).rows[0] == replace(
        row, mask="", mask_sha256="", label="benign", class_idx=0, split=Split.TRAIN, mask_selectable=False
    )


def test_a_domain_without_such_images_is_refused_with_the_remedy(started: Run) -> None:
    prepare_domains(started)
    params = load_params(started.params)
    with pytest.raises(
        PixelCAMError,
        match=r"prepared/away: expected images of .*'away' in train or val .* set domains\.away\.adapt_fr",
    ):
        read_unlabelled("away", params, started.prepared / "away", adapted_to=AdaptedTo.TRAIN_AND_VAL)


def test_a_domain_that_is_generated_has_another_remedy(tmp_path: Path) -> None:
    write_images(tmp_path, [])
    picture(tmp_path / "0.png", 0)
    write_manifest([make_row("0.png", root=tmp_path, split=Split.TEST)], tmp_path / "manifest.csv")
    (tmp_path / "classes.json").write_text('{"classes": ["a", "b"], "background_class_idx": null}', encoding="utf-8")
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(PixelCAMError, match=r"raise domains\.colon_b\.images\.train"):
        read_unlabelled("colon_b", params, tmp_path, adapted_to=AdaptedTo.TRAIN_AND_VAL)


def test_files_and_folders_from_anywhere(tmp_path: Path) -> None:
    first = picture(tmp_path / "one/z.PNG", 1, size=(5, 7))
    for place, value in (("two/b/c.tif", 2), ("two/a.jpg", 3), ("two/.hidden/d.png", 4), ("two/.e.png", 5)):
        picture(tmp_path / place, value)
    (tmp_path / "two/notes.txt").write_text("no image", encoding="utf-8")
    images = unlabelled_files([first, tmp_path / "two"])
    assert (images.root, images.folder) == (tmp_path, None)
    assert [row.image for row in images.rows] == ["one/z.PNG", "two/a.jpg", "two/b/c.tif"]
    assert images.rows[0] == UnlabelledImage(
        image="one/z.PNG", patient="", width=5, height=7, image_sha256=sha256_of(first)
    )
    assert unlabelled_files([first]).root == tmp_path / "one"


def test_paths_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "in/a.png", 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    images = unlabelled_files([Path("../in")])
    assert (images.root, images.rows[0].image) == (tmp_path / "in", "a.png")


def refusal(paths: list[Path]) -> str:
    with pytest.raises(PixelCAMError) as caught:
        unlabelled_files(paths)
    return str(caught.value)


def test_what_is_no_image_is_named_all_at_once(tmp_path: Path) -> None:
    picture(tmp_path / "good.png", 1)
    picture(tmp_path / "speck.png", 1, size=(9, 3))
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:45])  # ends within the pixel data
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    told = refusal([tmp_path, tmp_path / "notes.txt", tmp_path / "gone.png"])
    assert told.startswith(f"{tmp_path}: 4 fault(s)")
    assert f"{tmp_path}/torn.png: cannot be decoded" in told
    assert f"{tmp_path}/notes.txt: is no image in a format that is read here" in told
    assert f"{tmp_path}/gone.png: does not exist" in told
    assert f"{tmp_path}/speck.png: expected at least 4x4 pixels, got 9x3" in told


def test_nothing_to_look_at_is_refused(tmp_path: Path) -> None:
    assert "no image was given" in refusal([])
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    assert f"{tmp_path}: holds no image; expected files that end in .bmp, " in refusal([tmp_path])


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    first = picture(tmp_path / "a.png", 1)
    assert f"{first}: is given 2 times; name it once" in refusal([tmp_path, first])
    (tmp_path / "b.png").write_bytes(first.read_bytes())
    assert f"{first} and {tmp_path / 'b.png'}: are the same file; keep one" in refusal([tmp_path])


def test_a_manifest_of_files_reads_back(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    images = unlabelled_files([tmp_path])
    manifest = images.labelled([1], classes=("a", "b"))
    write_manifest(manifest.rows, tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv", root=tmp_path) == manifest
