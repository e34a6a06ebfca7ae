"""Tables and split files as people write them: what prepare understands, and what each refusal says."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_data import glas_domain, splits_domain, table_domain, write_glas, write_image, write_split
from rubbish import acceptance, refusal, write_good

from pipeline.data.adapters.glas import list_glas
from pipeline.data.adapters.splits import list_splits, read_split_files
from pipeline.data.adapters.table import list_table
from pipeline.data.manifest import COLUMNS, read_manifest, refuse_way_out, relative_path
from pipeline.params.errors import MAX_SHOWN, PixelCAMError, named, shown


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_good(tmp_path)


def _edit(root: Path, change: Callable[[str], str | bytes]) -> None:
    path = root / "table.csv"
    changed = change(path.read_text(encoding="utf-8"))
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())


UNDERSTOOD: dict[str, Callable[[str], str | bytes]] = {
    "byte-order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "bare carriage returns": lambda text: text.replace("\n", "\r"),
    "carriage returns and newlines": lambda text: text.replace("\n", "\r\n"),
    "blank lines": lambda text: text.replace("\n", "\n\n  ,,,\n"),
    "quotes": lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_dialects_make_the_same_manifest(root: Path, case: str) -> None:
    told = acceptance(root)
    manifest = root.parent / "prepared/home/manifest.csv"
    expected = manifest.read_bytes()
    _edit(root, UNDERSTOOD[case])
    assert acceptance(root) == told
    assert manifest.read_bytes() == expected


def test_quoted_commas_in_names(root: Path) -> None:
    (root / "images/b.png").rename(root / "images/b, left.png")
    _edit(root, lambda text: text.replace("images/b.png", '"images/b, left.png"'))
    acceptance(root)
    manifest = read_manifest(root.parent / "prepared/home/manifest.csv", root=root)
    assert "images/b, left.png" in [row.image for row in manifest.rows]


def test_extra_columns_are_named_since_one_may_be_a_misspelt_mask(root: Path) -> None:
    _edit(root, lambda text: text.replace("split,mask", "split,masks"))
    told = acceptance(root)
    assert f"{root}/table.csv: columns that are not used: masks (used are image, label, mask, patient, split)" in told


def test_rows_said_twice_are_counted_once_and_the_first_twenty_named(root: Path) -> None:
    rows = (root / "table.csv").read_text().splitlines()[1:]
    _edit(root, lambda text: text + "\n".join(rows * 10))
    told = acceptance(root)
    assert "listed twice and counted once: images/a.png, images/b.png" in told
    assert told.count("images/") == 20
    assert "and 20 more" in told


REFUSED: dict[str, tuple[Callable[[str], str | bytes], str]] = {
    "a missing column": (
        lambda text: text.replace("label", "grade", 1),
        r"table\.csv: lacks the column label, got image, grade, split, mask; name the columns in line 1",
    ),
    "semicolons": (
        lambda text: text.replace(",", ";"),
        r"table\.csv: is separated by semicolons or tabs; save it as CSV with commas",
    ),
    "semicolons below a header with commas": (
        lambda text: text.replace("images/b.png,malignant,train", "images/b.png;malignant;train"),
        r"line 3: expected 4 fields, got 2; put values with commas in double quotes",
    ),
    "unquoted commas": (
        lambda text: text.replace("images/b.png", "images/b, left.png"),
        r"line 3: expected 4 fields, got 5; put values with commas in double quotes",
    ),
    "an open quote": (
        lambda text: text.replace("images/d.png", '"images/d.png'),
        r"table\.csv: line 5: is not valid CSV \(.*\); close every double quote",
    ),
    "another encoding": (lambda text: text.encode("utf-16"), r"table\.csv: is not UTF-8 text \(.*\); save it as UTF-8"),
    "rows that contradict each other": (
        lambda text: text + "images/a.png,malignant,train,masks/a.png\n",
        r"images/a\.png: is listed twice, with different values; keep one row",
    ),
    "an unknown label": (
        lambda text: text.replace("b.png,malignant", "b.png,Malignant"),
        r"images/b\.png: expected a label out of benign, malignant, got 'Malignant'; mend it, or classes in the params",
    ),
    "no label": (
        lambda text: text.replace("b.png,malignant", "b.png,"),
        r"line 3: 'images/b\.png': has no label; fill it in or remove the row",
    ),
    "control characters": (
        lambda text: text.replace("b.png,malignant", "b.png,malig\x07nant"),
        r"line 3: 'images/b\.png': label holds control characters, 'malig\\x07nant'; type it again",
    ),
    "an unknown split": (
        lambda text: text.replace("c.png,benign,val", "c.png,benign,valid"),
        r"line 4: 'images/c\.png': split must be train, val or test, got 'valid'",
    ),
    "a class without training images": (
        lambda text: text.replace("b.png,malignant,train", "b.png,malignant,test"),
        r"class 'malignant': has no training image; mend classes, the splits, or the seed or fractions of the split",
    ),
    "a patient in two splits": (
        lambda text: "\n".join(f"{line},{'patient' if i == 0 else 'P7'}" for i, line in enumerate(text.split())),
        r"patient 'P7': is in train and val and test; keep each patient in one split, or set shared_patients to allow",
    ),
    "a path that climbs": (
        lambda text: text.replace("images/b.png", "../home/images/b.png"),
        r"line 3: '\.\./home/images/b\.png': leaves the root with '\.\.'; choose a root that holds every file",
    ),
    "an absolute path": (
        lambda text: text.replace("masks/b.png", "/etc/passwd"),
        r"line 3: '/etc/passwd': is absolute; write paths relative to the domain's root",
    ),
    "a drive": (
        lambda text: text.replace("images/b.png", "C:\\b.png"),
        r"line 3: 'C:\\b\.png': is absolute; write paths relative to the domain's root",
    ),
    "a name too long": (
        lambda text: text.replace("images/b.png", f"images/{'b' * 300}.png"),
        r"b\.png: cannot be found \(.*File name too long.*\); restore the file or mend its name",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_cannot_be_meant_are_refused(root: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    _edit(root, spoil)
    told = refusal(root)
    assert re.search(message, told), told


def test_links_that_leave_the_root_are_refused_and_those_within_are_not(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (root / "images/a.png").rename(outside / "a.png")
    (root / "images/a.png").symlink_to(outside / "a.png")
    (root / "masks").rename(outside / "masks")
    (root / "masks").symlink_to(outside / "masks")  # a folder above the files
    told = refusal(root)
    assert "5 fault(s)" in told
    assert f"{root}/images/a.png: expected a file below the root, got a link that leads to {outside}/a.png" in told
    assert f"{root}/masks/b.png: expected a file below the root, got a link that leads to {outside}/masks/b.png" in told
    assert "copy the file to its place, or choose a root that holds both" in told


def test_links_within_the_root_and_to_the_root_are_fine(root: Path) -> None:
    (root / "images").rename(root / "tiles")
    (root / "images").symlink_to("tiles")
    moved = root.with_name("disk")
    root.rename(moved)
    root.symlink_to(moved)
    acceptance(root)
    refuse_way_out("images/a.png", root=root)


@pytest.mark.parametrize(
    "text", ["", ".", "/", "/a", "../a", "a/../../b", "a\\b", "C:a", "\\\\host\\a", "a\nb", "\x1b[2Ja"]
)
def test_no_path_leads_out(text: str) -> None:
    with pytest.raises(PixelCAMError, match=r"; (name|rename|write|use|choose)"):
        relative_path(text)


def test_a_manifest_cannot_reach_outside_its_root_either(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    for line in ("../a.png,,,b,0,train,,6,4,00,,False", "a.png,/etc/passwd,,b,0,train,,6,4,00,,False"):
        path.write_text(f"{','.join(COLUMNS)}\n{line}\n")
        with pytest.raises(PixelCAMError, match=r"manifest\.csv: '.*': (leaves the root|is absolute).*run the prepare"):
            read_manifest(path, root=None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png,,,b,-1,train,,6,4,00,,False", r"class_idx must be a whole number from 0 on, got '-1'"),
        ("a.png,,,b,0,train,,0,4,00,,False", r"width must be a whole number from 1 on, got '0'"),
        (
            f"a.png,,,b,{'9' * 5000},train,,6,4,00,,False",
            r"class_idx must be a whole number from 0 on, got '9{120}\.\.\.'",
        ),
    ],
)
def test_numbers_of_a_manifest_are_whole_and_short(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{line}\n")
    with pytest.raises(PixelCAMError, match=message):
        read_manifest(path, root=None)


# --- split files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png;1\n", r"line 1: expected 2 fields \(image,class index\), got 'a\.png;1'; separate them by commas, and"),
        ('"a, b.png",1\n', r"line 1: expected 2 fields .*; separate them by commas, and rename files whose names hold"),
        (f"a.png,{'1' * 5000}\n", rf"a\.png: expected a class index, got '1{{{MAX_SHOWN}}}\.\.\.'"),
        ("a.png,²\n", r"a\.png: expected a class index, got '²'"),
        ("a.png\0,1,1\n", r"line 1: expected 2 fields .*, got 'a\.png\\x00,1,1'"),
    ],
    ids=["semicolon", "quoted comma", "long number", "superscript", "control characters"],
)
def test_split_files_are_refused_line_by_line(tmp_path: Path, text: str, message: str) -> None:
    write_split(tmp_path / "test", labels={"a.png": 1})
    (tmp_path / "test/class_labels.txt").write_text(text, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=message):
        read_split_files(tmp_path)


@pytest.mark.parametrize("text", ["\ufeffa.png,1\r", "a.png,1\r\n\r\n", " a.png , 1 \n"])
def test_split_files_in_any_dialect(tmp_path: Path, text: str) -> None:
    write_split(tmp_path / "test", labels={"a.png": 1})
    (tmp_path / "test/class_labels.txt").write_bytes(text.encode())
    assert [(entry.image, entry.class_idx) for entry in read_split_files(tmp_path)] == [("a.png", 1)]


def test_names_too_long_for_any_file_are_listed_all_the_same(tmp_path: Path) -> None:
    write_split(tmp_path / "folds/test", labels={f"{'a' * 300}/b.png": 1})
    (listing,) = list_splits(splits_domain(tmp_path, splits=Path("folds")))
    assert listing.image.endswith("/b.png")


def test_an_image_in_two_splits_is_refused(root: Path) -> None:
    for split in ("train", "test"):
        write_split(
            root / "folds" / split, labels={"images/a.png": 1, f"images/{'b' if split == 'train' else 'd'}.png": 0}
        )
    for path in (root / "folds").rglob("image_sizes.txt"):
        path.unlink()
    told = refusal(root, {"domains.home": _splits_values(root)})
    assert "images/a.png: is listed twice, with different values; keep one row" in told


def _splits_values(root: Path) -> dict[str, object]:
    return {**splits_domain(root, splits=Path("folds")).model_dump(mode="json"), "background_class": None}


def test_a_field_of_any_length_is_refused_where_csv_gives_up(tmp_path: Path) -> None:
    write_glas(tmp_path)
    (tmp_path / "Grade.csv").write_text("name,patient ID,grade (GlaS)\n" + "x" * 200_000 + ",1,benign\n")
    with pytest.raises(PixelCAMError, match=r"Grade\.csv: line 2: is not valid CSV .*; restore the file as published"):
        list_glas(glas_domain(tmp_path))


def test_a_folder_in_place_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(PixelCAMError, match=r"table\.csv: cannot be read \(Is a directory\); expected a text file"):
        list_table(table_domain(tmp_path))


def test_what_came_is_shown_on_one_short_line_without_control_characters() -> None:
    assert shown("a b") == "'a b'"
    assert shown("C:\\a") == "'C:\\a'"
    assert shown("\x1b[31m") == "'\\x1b[31m'"
    assert shown("a" * 500) == f"'{'a' * MAX_SHOWN}...'"
    assert (named("a b.png"), named("a\rb.png")) == ("a b.png", "'a\\rb.png'")
    assert os.linesep not in shown("a\nb")


def test_a_link_between_images_is_a_duplicate(root: Path) -> None:
    write_image(root / "images/b.png", value=9, size=(24, 20))
    (root / "images/d.png").unlink()
    (root / "images/d.png").symlink_to("b.png")
    assert "images/b.png and images/d.png: are the same file; keep one" in refusal(root)
