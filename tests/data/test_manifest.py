"""The manifest: what is written is read back, the same bytes every time; what is foreign is refused."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.manifest import COLUMNS, Manifest, ManifestRow, Split, is_writable, read_manifest, write_manifest
from pipeline.params.errors import PixelCAMError

ROW = ManifestRow(
    image="images/a.png",
    mask="masks/a.png",
    ignore_mask="",
    label="benign",
    class_idx=0,
    split=Split.TRAIN,
    patient="007",
    width=6,
    height=4,
    image_sha256="0" * 64,
    mask_sha256="1" * 64,
    mask_selectable=False,
)


def test_the_file_is_plain_csv(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    write_manifest([ROW], path)
    assert path.read_bytes().decode() == (
        "image,mask,ignore_mask,label,class_idx,split,patient,width,height,image_sha256,mask_sha256,mask_selectable\n"
        f"images/a.png,masks/a.png,,benign,0,train,007,6,4,{'0' * 64},{'1' * 64},False\n"
    )


def test_read_back_in_order_with_texts_as_they_were(tmp_path: Path) -> None:
    rows = (
        ROW,
        replace(ROW, image="NA", patient="NaN", mask="", mask_sha256="", split=Split.VAL, mask_selectable=True),
        replace(ROW, image='a, "b".png', patient="null", label="ü", class_idx=1, split=Split.TEST),
    )
    path = tmp_path / "manifest.csv"
    write_manifest(rows, path)
    manifest = read_manifest(path, root=Path("data/raw"))
    assert manifest == Manifest(rows, Path("data/raw"))
    assert read_manifest(path, root=None).root == tmp_path
    assert len(manifest) == 3
    assert manifest.of_split(Split.VAL) == Manifest((rows[1],), Path("data/raw"))


TEXT = st.text(st.characters(codec="utf-8"), max_size=12).filter(is_writable)
# What may lead out of the root, or name a drive, is refused, see test_no_path_leads_out.
NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\\:."), max_size=12).filter(is_writable)


@settings(deadline=None, max_examples=100)
@given(
    texts=st.lists(st.tuples(NAME, TEXT, TEXT), max_size=4),
    selectable=st.booleans(),
    split=st.sampled_from(list(Split)),
)
def test_any_text_survives(texts: list[tuple[str, str, str]], selectable: bool, split: Split) -> None:
    rows = tuple(
        replace(
            ROW,
            image=f"i{image}",
            label=label,
            patient=patient,
            mask_selectable=selectable,
            split=split,
        )
        for image, label, patient in texts
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.csv"
        write_manifest(rows, path)
        assert read_manifest(path, root=None).rows == rows


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\0b", "a\udc80b"])
def test_control_characters_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PixelCAMError, match=r"'images/a\.png': patient holds control characters"):
        write_manifest([replace(ROW, patient=text)], tmp_path / "manifest.csv")
    assert list(tmp_path.iterdir()) == []


def test_no_rows(tmp_path: Path) -> None:
    write_manifest([], tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv", root=None).rows == ()


HEADER = ",".join(COLUMNS)
LINE = "a.png,,,benign,0,train,,6,4,00,,False"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as a manifest"),
        (
            "image,label\na.png,benign\n",
            r"expected the columns image, mask, .*, got image, label; run the prepare stage",
        ),
        (f"{HEADER}\n{LINE.replace('train', 'training')}\n", "'training' is not a valid Split"),
        (f"{HEADER}\n{LINE.replace('False', 'no')}\n", "mask_selectable must be True or False, got 'no'"),
        (f"{HEADER}\n{LINE.replace(',6,', ',6.5,')}\n", "6.5"),
        (f"{HEADER}\n{LINE},more\n", "manifest"),
        (f"{HEADER}\na.png,,,benign\n", "run the prepare stage again"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(content)
    with pytest.raises(PixelCAMError, match=message) as caught:
        read_manifest(path, root=None)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PixelCAMError, match=r"absent\.csv: cannot be read as a manifest.*run the prepare stage again"):
        read_manifest(tmp_path / "absent.csv", root=None)
