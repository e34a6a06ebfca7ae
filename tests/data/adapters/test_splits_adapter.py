"""Split files of the WSOL benchmark: folder names, selection masks, missing and malformed lines."""

from collections import Counter
from pathlib import Path

import pytest
from raw_data import splits_domain, write_image, write_instances, write_split

from pipeline.data.adapters.splits import list_splits, read_split_files
from pipeline.data.manifest import Split
from pipeline.data.preparation import list_files
from pipeline.params.errors import PixelCAMError


def test_masks_ignore_masks_and_images_without_a_line(tmp_path: Path) -> None:
    write_split(
        tmp_path / "folds" / "test",
        labels={"tumor/a.png": 1, "tumor/b.png": 1, "normal/c.png": 0},
        masks={"tumor/a.png": "masks/a.png,", "tumor/b.png": "masks/b.png,masks/b_ignore.png"},
    )
    listings = list_splits(splits_domain(tmp_path, splits=Path("folds")))
    assert [(item.image, item.label, item.mask, item.ignore_mask) for item in listings] == [
        ("tumor/a.png", "metastatic", "masks/a.png", ""),
        ("tumor/b.png", "metastatic", "masks/b.png", "masks/b_ignore.png"),
        ("normal/c.png", "normal", "", ""),
    ]
    assert {(item.split, item.mask_selectable, item.patient, item.size) for item in listings} == {
        (Split.TEST, False, "", (6, 4))
    }


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val", "test"), [("train", False), ("val", True), ("test", False)]),
        (("train-weaksup", "train-fullsup", "test"), [("train", False), ("val", True), ("test", False)]),
        (("test", "valcl", "train"), [("train", False), ("val", True), ("test", False)]),
        (("test",), [("test", False)]),
        (("train", "valpx"), [("train", False), ("val", True)]),
    ],
)
def test_folder_names(tmp_path: Path, folders: tuple[str, ...], expected: list[tuple[str, bool]]) -> None:
    for name in folders:
        write_split(tmp_path / name, labels={f"{name}.png": 0})
    assert [(entry.split, entry.mask_selectable) for entry in read_split_files(tmp_path)] == expected


@pytest.mark.parametrize("val", ["val", "valcl"])
def test_valpx_limits_the_masks_for_selection(tmp_path: Path, val: str) -> None:
    write_split(tmp_path / val, labels={"a.png": 0, "b.png": 1, "c.png": 1})
    write_split(tmp_path / "valpx", labels={"b.png": 1})
    entries = read_split_files(tmp_path)
    assert [(entry.image, entry.mask_selectable) for entry in entries] == [
        ("a.png", False),
        ("b.png", True),
        ("c.png", False),
    ]


def test_valpx_outside_of_val(tmp_path: Path) -> None:
    write_split(tmp_path / "train", labels={"b.png": 1})
    write_split(tmp_path / "valcl", labels={"a.png": 0})
    write_split(tmp_path / "valpx", labels={"b.png": 1})
    with pytest.raises(PixelCAMError, match=r"b\.png: is in valpx but not in val"):
        read_split_files(tmp_path)


def test_no_split_folder(tmp_path: Path) -> None:
    with pytest.raises(
        PixelCAMError, match=r"holds no split folder; expected some of train, train-weaksup, val, valcl"
    ):
        read_split_files(tmp_path)


def test_a_folder_that_is_not_there_is_named_with_its_parameter(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"fold-9: there is no such folder of split files; mend 'splits'"):
        read_split_files(tmp_path / "fold-9")


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    for name in ("val", "train-fullsup"):
        write_split(tmp_path / name, labels={"a.png": 0})
    with pytest.raises(PixelCAMError, match="val and train-fullsup both mean the val split"):
        read_split_files(tmp_path)


def test_missing_class_labels(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(PixelCAMError, match=r"train/class_labels\.txt: cannot be read"):
        read_split_files(tmp_path)


@pytest.mark.parametrize(
    ("file_name", "text", "message"),
    [
        ("class_labels.txt", "a.png 1\n", r"class_labels\.txt.*\n  line 1: expected 2 fields \(image,class index\)"),
        ("class_labels.txt", "a.png,1\na.png,0\n", r"line 2: a\.png is listed twice"),
        ("class_labels.txt", "a.png,tumor\n", r"a\.png: expected a class index, got 'tumor'"),
        ("class_labels.txt", "a.png,-1\n", r"a\.png: expected a class index, got '-1'"),
        ("class_labels.txt", "a.png,1\nb.png,1\n", r"class_labels\.txt: b\.png: has no line in image_ids\.txt"),
        ("image_sizes.txt", "a.png,6,x\n", r"a\.png: expected width and height in pixels, got '6,x'"),
        ("image_sizes.txt", "b.png,6,4\n", r"image_sizes\.txt: b\.png: has no line in class_labels\.txt"),
        ("image_ids.txt", "a.png\nb.png\n", r"image_ids\.txt: b\.png: has no line in class_labels\.txt"),
        ("localization.txt", "a.png,1,2,3,4\n", r"line 1: expected 3 fields .*boxes are not supported"),
        ("localization.txt", "a.png,m.png,\na.png,n.png,\n", r"line 2: a\.png is listed twice; merge its masks"),
        ("localization.txt", "b.png,m.png,\n", r"localization\.txt: b\.png: has no line in class_labels\.txt"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, file_name: str, text: str, message: str) -> None:
    write_split(tmp_path / "test", labels={"a.png": 1}, masks={"a.png": "m.png,"})
    (tmp_path / "test" / file_name).write_text(text)
    with pytest.raises(PixelCAMError, match=message):
        read_split_files(tmp_path)


def test_a_blank_line_ends_nothing(tmp_path: Path) -> None:
    write_split(tmp_path / "test", labels={"a.png": 0, "b.png": 1})
    (tmp_path / "test/class_labels.txt").write_text("a.png,0\n \nb.png,1\n")
    assert [entry.image for entry in read_split_files(tmp_path)] == ["a.png", "b.png"]


def test_class_index_out_of_range_and_paths_out_of_the_root(tmp_path: Path) -> None:
    write_split(
        tmp_path / "folds" / "test",
        labels={"a.png": 2, "../b.png": 1, "/c.png": 1, "d.png": 1},
        masks={"d.png": "../masks/d.png,"},
    )
    with pytest.raises(PixelCAMError) as caught:
        list_splits(splits_domain(tmp_path, splits=Path("folds")))
    message = str(caught.value)
    assert "4 fault(s)" in message
    assert "a.png: has class index 2, but classes lists 2 (normal, metastatic), counted from 0" in message
    assert "'../b.png': leaves the root" in message
    assert "'/c.png': is absolute" in message
    assert "'../masks/d.png': leaves the root" in message


@pytest.mark.parametrize("root", ["data", "data/published"])
def test_names_count_from_the_root_or_from_above_it(tmp_path: Path, root: str) -> None:
    write_image(tmp_path / "data/published/a.png")
    write_instances(tmp_path / "data/published/a_mask.png")
    write_split(
        tmp_path / "folds/test", labels={"published/a.png": 1}, masks={"published/a.png": "published/a_mask.png,"}
    )
    (listing,) = list_splits(splits_domain(tmp_path / root, splits=tmp_path / "folds"))
    assert (tmp_path / root / listing.image).is_file()
    assert (tmp_path / root / listing.mask).is_file()


def test_a_published_test_split_gives_adaptation_images(tmp_path: Path) -> None:
    for number in range(8):
        write_image(tmp_path / f"{number}.png", value=number)
    write_split(tmp_path / "folds/test", labels={f"{number}.png": number % 2 for number in range(8)})
    domain = splits_domain(tmp_path, splits=Path("folds")).model_copy(update={"adapt_fraction": 0.25})
    moved = [item for item in list_files(domain) if item.split == Split.TRAIN]
    assert sorted(item.label for item in moved) == ["metastatic", "normal"]
    assert Counter(item.split for item in list_files(domain)) == {Split.TRAIN: 2, Split.TEST: 6}
