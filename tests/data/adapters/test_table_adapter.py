"""One's own data as a CSV: what is accepted, and what each refusal says."""

from pathlib import Path

import pytest
from raw_data import table_domain

from pipeline.data.adapters.listing import Listing
from pipeline.data.adapters.table import list_table
from pipeline.data.manifest import Split
from pipeline.params.errors import PixelCAMError


def _list(root: Path, content: str | bytes) -> list[Listing]:
    (root / "table.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return list_table(table_domain(root))


def test_all_columns(tmp_path: Path) -> None:
    (listing,) = _list(tmp_path, "split,image,label,note,patient,mask\nval,a/b.png,benign,x,P7,m/b.png\n")
    assert listing == Listing(
        image="a/b.png",
        mask="m/b.png",
        ignore_mask="",
        label="benign",
        patient="P7",
        split=Split.VAL,
        mask_selectable=True,
        size=None,
    )


def test_two_columns_suffice(tmp_path: Path) -> None:
    (listing,) = _list(tmp_path, "image,label\na.png,benign\n")
    assert (listing.mask, listing.patient, listing.split, listing.mask_selectable) == ("", "", None, False)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfimage,label\r\na.png,benign\r\n",
        b"image,label\ra.png,benign",
        b" image , label \n a.png , benign \n\n",
        b'"image","label","note"\n"a.png","benign","one, two\nand three"\n',
        b"image,label\n./a.png,benign\n",
    ],
    ids=["byte-order mark and CRLF", "bare CR", "spaces and blank lines", "quotes", "dot"],
)
def test_dialects(tmp_path: Path, content: bytes) -> None:
    assert [(item.image, item.label) for item in _list(tmp_path, content)] == [("a.png", "benign")]


def test_quoted_comma_in_a_name(tmp_path: Path) -> None:
    assert _list(tmp_path, 'image,label\n"a, b.png",benign\n')[0].image == "a, b.png"


def test_only_masks_of_val_are_for_selection(tmp_path: Path) -> None:
    listings = _list(tmp_path, "image,label,split\na.png,benign,train\nb.png,benign,val\nc.png,benign,test\n")
    assert [item.mask_selectable for item in listings] == [False, True, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image;label\na.png;benign\n", r"table\.csv: is separated by semicolons or tabs; save it as CSV with commas"),
        (b"image\tlabel\na.png\tbenign\n", r"table\.csv: is separated by semicolons or tabs"),
        (b"file,label\na.png,benign\n", r"table\.csv: lacks the column image, got file, label"),
        (b"", r"table\.csv: lacks the column image and label, got no header"),
        (b"image,label,label\na.png,benign,benign\n", r"table\.csv: has the column label twice"),
        (
            b"image,label\na, b.png,benign\n",
            r"line 2: expected 2 fields, got 3; put values with commas in double quotes",
        ),
        (b"image,label\na.png\n", r"line 2: expected 2 fields, got 1"),
        (b"image,label\na.png,\n", r"line 2: 'a\.png': has no label"),
        (b"image,label\n,benign\n", r"line 2: '': expected a file below the root"),
        (
            b"image,label,split\na.png,benign,validation\n",
            r"line 2: 'a\.png': split must be train, val or test, got 'valid",
        ),
        (b"image,label,split\na.png,benign,\n", r"line 2: 'a\.png': split must be train, val or test, got ''"),
        (b"image,label\n../a.png,benign\n", r"line 2: '\.\./a\.png': leaves the root"),
        (b"image,label\nb/../../a.png,benign\n", r"line 2: 'b/\.\./\.\./a\.png': leaves the root"),
        (b"image,label\n/etc/a.png,benign\n", r"line 2: '/etc/a\.png': is absolute"),
        (b"image,label\nC:\\a.png,benign\n", r"line 2: 'C:\\a\.png': is absolute"),
        (b"image,label\nb\\a.png,benign\n", r"line 2: 'b\\a\.png': is written with backslashes"),
        (b"image,label,mask\na.png,benign,../m.png\n", r"line 2: '\.\./m\.png': leaves the root"),
        (b'image,label\n"a.png,benign\n', r"table\.csv: line \d: is not valid CSV"),
        (b"image,label\n\xe4.png,benign\n", r"table\.csv: is not UTF-8 text"),
    ],
)
def test_refusals(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(PixelCAMError, match=message):
        _list(tmp_path, content)


@pytest.mark.parametrize("column", ["label", "patient"])
def test_control_characters_are_named_with_their_column(column: str, tmp_path: Path) -> None:
    values = {"label": "benign", "patient": "P7"} | {column: "a\x07b"}
    with pytest.raises(PixelCAMError, match=f"'a.png': {column} holds control characters"):
        _list(tmp_path, f"image,label,patient\na.png,{values['label']},{values['patient']}\n")


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"table\.csv: cannot be read"):
        list_table(table_domain(tmp_path))


def test_every_bad_row_is_listed_up_to_a_cap(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError) as caught:
        _list(tmp_path, "image,label\n" + "a.png,\n" * 23)
    lines = str(caught.value).split("\n")
    assert "23 fault(s)" in lines[0]
    assert len(lines) == 22
    assert lines[1] == "  line 2: 'a.png': has no label; fill it in or remove the row"
    assert lines[-1] == "  ... and 3 more"
