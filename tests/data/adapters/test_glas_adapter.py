"""GlaS as published: bare carriage returns, stray spaces, both folder layouts, with split files and without."""

from pathlib import Path

import pytest
from raw_data import HEADER, PUBLISHED, glas_domain, write_glas, write_image, write_split

from pipeline.data.adapters.glas import list_glas
from pipeline.data.adapters.listing import Listing
from pipeline.data.manifest import Split
from pipeline.data.preparation import list_files
from pipeline.params.errors import PixelCAMError


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A fold: train_1 for training, train_2 for validation (its mask for selection), testA_1 for the test."""
    folder = tmp_path / "fold-0"
    write_split(folder / "train", labels={f"{PUBLISHED}/train_1.bmp": 1})
    for name in ("valcl", "valpx"):
        write_split(folder / name, labels={f"{PUBLISHED}/train_2.bmp": 0})
    write_split(folder / "test", labels={f"{PUBLISHED}/testA_1.bmp": 0})
    return folder


def test_published_grades_give_label_patient_and_mask(tmp_path: Path) -> None:
    write_glas(tmp_path)
    listings = list_glas(glas_domain(tmp_path))
    assert listings[0] == Listing(
        image="train_1.bmp",
        mask="train_1_anno.bmp",
        ignore_mask="",
        label="malignant",
        patient="1",
        split=None,
        mask_selectable=False,
        size=None,
    )
    assert [(item.image, item.label, item.patient) for item in listings[1:]] == [
        ("train_2.bmp", "benign", "1"),
        ("testA_1.bmp", "benign", "22"),
    ]


@pytest.mark.parametrize("line_end", ["\r", "\n", "\r\n"])
def test_any_line_end_reads_alike(tmp_path: Path, line_end: str) -> None:
    write_glas(tmp_path)
    grades = tmp_path / "Grade.csv"
    grades.write_bytes(grades.read_bytes().replace(b"\r", line_end.encode()) + line_end.encode())
    assert [item.image for item in list_glas(glas_domain(tmp_path))] == ["train_1.bmp", "train_2.bmp", "testA_1.bmp"]


def test_root_above_the_published_folder(tmp_path: Path) -> None:
    write_glas(tmp_path / PUBLISHED)
    assert list_glas(glas_domain(tmp_path))[0].mask == f"{PUBLISHED}/train_1_anno.bmp"


@pytest.mark.parametrize("extension", [".png", ".tif", ".webp", ".BMP"])
def test_other_lossless_formats_and_split_files_that_say_bmp(tmp_path: Path, splits: Path, extension: str) -> None:
    write_glas(tmp_path / "raw", extension=extension)
    listings = list_glas(glas_domain(tmp_path / "raw", splits=splits))
    assert [(item.image, item.split) for item in listings] == [
        (f"train_1{extension}", Split.TRAIN),
        (f"train_2{extension}", Split.VAL),
        (f"testA_1{extension}", Split.TEST),
    ]


def test_images_in_a_subfolder(tmp_path: Path) -> None:
    write_glas(tmp_path / "images")
    (tmp_path / "images" / "Grade.csv").rename(tmp_path / "Grade.csv")
    assert list_glas(glas_domain(tmp_path))[0].image == "images/train_1.bmp"


@pytest.mark.parametrize("below", ["", PUBLISHED])
def test_split_files_work_from_the_folder_and_from_above(tmp_path: Path, splits: Path, below: str) -> None:
    root = tmp_path / "raw"
    write_glas(root / below)
    listings = list_glas(glas_domain(root, splits=splits))
    assert [(item.split, item.mask_selectable, item.patient, item.size) for item in listings] == [
        (Split.TRAIN, False, "1", (6, 4)),
        (Split.VAL, True, "1", (6, 4)),
        (Split.TEST, False, "22", (6, 4)),
    ]
    assert [Path(item.image).name for item in listings] == ["train_1.bmp", "train_2.bmp", "testA_1.bmp"]


def test_splits_are_relative_to_the_root(tmp_path: Path) -> None:
    write_glas(tmp_path)
    write_split(tmp_path / "folds" / "test", labels={"testA_1.bmp": 0})
    assert [item.image for item in list_glas(glas_domain(tmp_path, splits=Path("folds")))] == ["testA_1.bmp"]


def test_missing_grades_name_both_places(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"Grade\.csv: does not exist, nor does Warwick_QU.*let root be"):
        list_glas(glas_domain(tmp_path))


def test_other_columns(tmp_path: Path) -> None:
    (tmp_path / "Grade.csv").write_text("name;patient ID;grade (GlaS)\n")
    with pytest.raises(
        PixelCAMError, match=r"Grade\.csv: expected the columns name, patient ID, grade \(GlaS\), got name;"
    ):
        list_glas(glas_domain(tmp_path))


def test_every_missing_and_doubled_file_is_named(tmp_path: Path) -> None:
    write_glas(tmp_path)
    (tmp_path / "train_1.bmp").unlink()
    (tmp_path / "train_2_anno.bmp").unlink()
    write_image(tmp_path / "testA_1.png")
    with pytest.raises(PixelCAMError) as caught:
        list_glas(glas_domain(tmp_path))
    message = str(caught.value)
    assert "3 fault(s)" in message
    assert "  train_1: expected one file train_1.bmp (or .png, .tif, .tiff, .webp), got none" in message
    assert "  train_2_anno: expected one file" in message
    assert "got testA_1.bmp and testA_1.png" in message


def test_short_and_repeated_rows(tmp_path: Path) -> None:
    write_glas(tmp_path)
    (tmp_path / "Grade.csv").write_text(f"{HEADER}\ntrain_1,1\n")
    with pytest.raises(PixelCAMError, match=r"line 2: expected 4 fields, got 'train_1,1'"):
        list_glas(glas_domain(tmp_path))
    (tmp_path / "Grade.csv").write_text(f"{HEADER}\ntrain_1,1, benign,\ntrain_1,2, benign,\n")
    with pytest.raises(PixelCAMError, match=r"train_1: has two rows in Grade\.csv"):
        list_glas(glas_domain(tmp_path))


def test_every_bad_row_is_named_and_a_row_needs_a_name_but_no_patient(tmp_path: Path) -> None:
    write_glas(tmp_path)
    (tmp_path / "Grade.csv").write_text(f"{HEADER}\ntrain_1,1\n ,1, benign,\ntrain_2, , benign,\n")
    with pytest.raises(PixelCAMError) as caught:
        list_glas(glas_domain(tmp_path))
    assert "2 fault(s)" in str(caught.value)
    assert "line 2: expected 4 fields" in str(caught.value)
    assert "line 3: expected 4 fields" in str(caught.value)
    (tmp_path / "Grade.csv").write_text(f"{HEADER}\n\ntrain_2, , benign,\n")
    assert [(item.image, item.patient) for item in list_glas(glas_domain(tmp_path))] == [("train_2.bmp", "")]


def test_what_lies_beside_the_images_is_left_alone(tmp_path: Path) -> None:
    write_glas(tmp_path)
    (tmp_path / "train_1.xml").touch()
    (tmp_path / "train_1.jpg").touch()
    assert list_glas(glas_domain(tmp_path))[0].image == "train_1.bmp"


def test_split_files_that_disagree_with_the_grades(tmp_path: Path) -> None:
    write_glas(tmp_path)
    write_split(tmp_path / "folds" / "test", labels={"train_1.bmp": 0, "train_2.bmp": 2, "train_9.bmp": 0})
    with pytest.raises(PixelCAMError) as caught:
        list_glas(glas_domain(tmp_path, splits=Path("folds")))
    message = str(caught.value)
    assert "train_1.bmp: is class 0 (benign) here and 'malignant' in Grade.csv" in message
    assert "train_2.bmp: has class index 2, but classes lists 2 (benign, malignant)" in message
    assert "train_9.bmp: has no row in Grade.csv" in message


def test_patients_of_the_test_split_are_moved_whole(tmp_path: Path) -> None:
    write_glas(tmp_path, rows=[f"testA_{number},{number // 2}, benign, healthy" for number in range(6)])
    write_split(tmp_path / "fold/test", labels={f"testA_{number}.bmp": 0 for number in range(6)})
    domain = glas_domain(tmp_path, splits=Path("fold")).model_copy(update={"adapt_fraction": 0.3})
    moved = [item.patient for item in list_files(domain) if item.split == Split.TRAIN]
    assert len(moved) == 2
    assert len(set(moved)) == 1
