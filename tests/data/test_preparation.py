"""From raw data to a checked manifest: what is accepted, every refusal by name, and nothing written on failure."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images import read_image, read_mask
from pipeline.data.manifest import Manifest, Split, read_manifest
from pipeline.data.preparation import prepare_domain, summary
from pipeline.params.errors import PixelCAMError
from pipeline.params.types import SplitsDomain, SplitSizes, SyntheticDomain, TableDomain
from pipeline.params.vocabulary import Laboratory, SharedPatients, Tissue

# image, label, split, patient
ROWS = (
    ("a.png", "benign", "train", "P1"),
    ("b.png", "malignant", "train", "P2"),
    ("c.png", "benign", "val", "P3"),
    ("d.png", "malignant", "test", "P4"),
)


def _domain(
    root: Path,
    *,
    shared_patients: SharedPatients = SharedPatients.REJECT,
    adapt_fraction: float = 0.0,
) -> TableDomain:
    return TableDomain(
        adapter="table",
        root=root,
        table=Path("table.csv"),
        classes=("benign", "malignant"),
        background_class=None,
        review=None,
        val_fraction=0.25,
        test_fraction=0.25,
        adapt_fraction=adapt_fraction,
        seed=0,
        shared_patients=shared_patients,
    )


def _write_table(root: Path, rows: Sequence[tuple[str, str, str, str]]) -> None:
    lines = ["image,mask,label,split,patient"]
    lines += [f"images/{image},masks/{image},{label},{split},{patient}" for image, label, split, patient in rows]
    (root / "table.csv").write_text("\n".join(lines) + "\n")


def _write_mask(path: Path, *, size: tuple[int, int] = (6, 4)) -> None:
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[1:, 2:] = True
    Image.fromarray(mask).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four good images of 6x4 pixels with masks, and their table."""
    folder = tmp_path / "raw"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, (name, *_) in enumerate(ROWS):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(folder / "images" / name)
        _write_mask(folder / "masks" / name)
    _write_table(folder, ROWS)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "prepared" / "domain"


def _refusal(domain: TableDomain | SplitsDomain, output: Path) -> str:
    """Return the message of the refusal, having checked that nothing was written."""
    before = sorted(output.parent.rglob("*"))
    with pytest.raises(PixelCAMError) as caught:
        prepare_domain(domain, output=output)
    assert not output.exists()
    assert sorted(output.parent.rglob("*")) == before
    return str(caught.value)


def test_good_files_become_a_manifest(root: Path, output: Path) -> None:
    manifest = prepare_domain(_domain(root), output=output)
    assert sorted(path.name for path in output.iterdir()) == ["classes.json", "manifest.csv"]
    assert read_manifest(output / "manifest.csv", root=root) == manifest
    assert summary(manifest) == "4 images: train 2, val 1 (1 for selection), test 1"
    row = manifest.rows[1]
    assert (row.image, row.mask, row.label, row.class_idx, row.split, row.patient, row.width, row.height) == (
        "images/b.png",
        "masks/b.png",
        "malignant",
        1,
        Split.TRAIN,
        "P2",
        6,
        4,
    )
    assert row.image_sha256 == hashlib.sha256((root / "images/b.png").read_bytes()).hexdigest()
    assert row.mask_sha256 == hashlib.sha256((root / "masks/b.png").read_bytes()).hexdigest()


def test_rows_are_sorted_and_bytes_repeat(root: Path, output: Path) -> None:
    prepare_domain(_domain(root), output=output)
    first = (output / "manifest.csv").read_bytes()
    _write_table(root, ROWS[::-1])
    prepare_domain(_domain(root), output=output)
    assert (output / "manifest.csv").read_bytes() == first


def test_without_split_column_patients_are_split(root: Path, output: Path) -> None:
    (root / "table.csv").write_text("image,label\n" + "".join(f"images/{name},benign\n" for name, *_ in ROWS[:3]))
    domain = _domain(root).model_copy(update={"val_fraction": 0.0, "test_fraction": 1.0})
    manifest = prepare_domain(domain, output=output)
    assert [(row.split, row.mask, row.mask_sha256) for row in manifest.rows] == [(Split.TEST, "", "")] * 3


def test_all_bad_files_are_named_at_once(root: Path, output: Path) -> None:
    (root / "images/a.png").write_bytes((root / "images/a.png").read_bytes()[:45])  # ends within the pixel data
    (root / "images/b.png").unlink()
    _write_mask(root / "masks/c.png", size=(4, 6))
    (root / "masks/d.png").write_text("no image")
    message = _refusal(_domain(root), output)
    assert message.startswith(f"{root}: 4 fault(s)")
    assert f"{root}/images/a.png: cannot be decoded" in message
    assert f"{root}/images/b.png: does not exist" in message
    assert "masks/c.png: expected 6x4 pixels like images/c.png, got 4x6" in message
    assert f"{root}/masks/d.png: is no image in a format that is read here" in message


def test_a_failure_leaves_the_former_manifest(root: Path, output: Path) -> None:
    prepare_domain(_domain(root), output=output)
    former = (output / "manifest.csv").read_bytes()
    (root / "images/a.png").unlink()
    with pytest.raises(PixelCAMError):
        prepare_domain(_domain(root), output=output)
    assert (output / "manifest.csv").read_bytes() == former
    assert [path.name for path in output.parent.iterdir()] == ["domain"]


def test_duplicates_name_both_images(root: Path, output: Path) -> None:
    (root / "images/d.png").write_bytes((root / "images/a.png").read_bytes())
    assert "images/a.png and images/d.png: are the same file; keep one" in _refusal(_domain(root), output)


def test_a_row_said_twice_counts_once(root: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_table(root, [*ROWS, ROWS[0]])
    assert len(prepare_domain(_domain(root), output=output)) == 4
    assert "listed twice and counted once: images/a.png" in capsys.readouterr().err


def test_rows_that_contradict_each_other(root: Path, output: Path) -> None:
    _write_table(root, [*ROWS, ("a.png", "malignant", "train", "P1"), ("b.png", "malignant", "test", "P2")])
    message = _refusal(_domain(root), output)
    assert "images/a.png: is listed twice, with different values" in message
    assert "images/b.png: is listed twice, with different values" in message


def test_a_domain_may_be_all_test_but_not_without(root: Path, output: Path) -> None:
    _write_table(root, [(name, label, "test", patient) for name, label, _, patient in ROWS])
    assert summary(prepare_domain(_domain(root), output=output)) == "4 images: train 0, val 0, test 4"
    _write_table(root, ROWS[:3])
    assert "the test split has no image" in _refusal(_domain(root), output.with_name("other"))


def test_published_test_images_become_adaptation_images_that_may_lack_a_class(root: Path, output: Path) -> None:
    _write_table(root, [(name, "benign", "test", patient) for name, _, _, patient in ROWS])
    manifest = prepare_domain(_domain(root, adapt_fraction=0.5), output=output)
    assert summary(manifest) == "4 images: train 2, val 0, test 2"
    assert not {row.patient for row in manifest.of_split(Split.TRAIN).rows} & {
        row.patient for row in manifest.of_split(Split.TEST).rows
    }
    assert all(row.mask and not row.mask_selectable for row in manifest.rows)


def test_images_without_splits_are_split_and_then_moved(root: Path, output: Path) -> None:
    (root / "table.csv").write_text("image,label\n" + "".join(f"images/{name},{label}\n" for name, label, *_ in ROWS))
    fractions = {"val_fraction": 0.0, "test_fraction": 1.0, "adapt_fraction": 0.5}
    manifest = prepare_domain(_domain(root).model_copy(update=fractions), output=output)
    for split in (Split.TRAIN, Split.TEST):
        assert sorted(row.label for row in manifest.of_split(split).rows) == ["benign", "malignant"]


def test_a_single_test_patient_cannot_be_shared(root: Path, output: Path) -> None:
    message = _refusal(_domain(root, adapt_fraction=0.5), output)
    assert message == (
        f"{root}: adapt_fraction: expected at least two patients in the test split, one of them to adapt models to, "
        "got P4 alone; set it to 0, or list more patients"
    )


def test_no_images(root: Path, output: Path) -> None:
    _write_table(root, [])
    assert "the test split has no image" in _refusal(_domain(root), output)


def test_patients_on_both_sides_of_a_split(root: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_table(root, [*ROWS[:2], ("c.png", "benign", "val", "p1"), ("d.png", "malignant", "test", "P2")])
    message = _refusal(_domain(root), output)
    assert "patient 'P2': is in train and test" in message
    assert "patient 'p1': is in train and val" in message  # letters' case does not make another patient
    prepare_domain(_domain(root, shared_patients=SharedPatients.ALLOW), output=output)
    told = capsys.readouterr().err
    assert (
        "2 patients are on both sides of a split (shared_patients: allow): 1 in train and test, 1 in train and val"
        in told
    )


def test_images_without_patient_share_none(root: Path, output: Path) -> None:
    _write_table(root, [(name, label, split, "") for name, label, split, _ in ROWS])
    assert len(prepare_domain(_domain(root), output=output)) == 4


def test_a_missing_root(tmp_path: Path, output: Path) -> None:
    assert "absent: is no folder; put the data there" in _refusal(_domain(tmp_path / "absent"), output)


@pytest.mark.parametrize("place", [".", ".."])
def test_raw_data_is_never_replaced(root: Path, place: str) -> None:
    before = sorted(root.rglob("*"))
    with pytest.raises(PixelCAMError, match=r"holds the raw data in .* and would be replaced"):
        prepare_domain(_domain(root), output=root / place)
    assert sorted(root.rglob("*")) == before


def _splits_domain(root: Path) -> SplitsDomain:
    return SplitsDomain(
        adapter="splits",
        root=root,
        splits=Path("folds"),
        classes=("normal", "metastatic"),
        background_class="normal",
        review=None,
        val_fraction=0.0,
        test_fraction=0.0,
        adapt_fraction=0.0,
        seed=0,
        shared_patients=SharedPatients.REJECT,
    )


def test_split_files_with_sizes_and_ignore_masks(root: Path, output: Path) -> None:
    folder = root / "folds" / "test"
    folder.mkdir(parents=True)
    (folder / "class_labels.txt").write_text("images/a.png,0\nimages/b.png,1\n")
    (folder / "image_sizes.txt").write_text("images/a.png,6,4\nimages/b.png,6,4\n")
    (folder / "localization.txt").write_text("images/b.png,masks/b.png,masks/c.png\n")
    manifest = prepare_domain(_splits_domain(root), output=output)
    assert [(row.image, row.mask, row.ignore_mask, row.label) for row in manifest.rows] == [
        ("images/a.png", "", "", "normal"),
        ("images/b.png", "masks/b.png", "masks/c.png", "metastatic"),
    ]
    (folder / "image_sizes.txt").write_text("images/a.png,6,4\nimages/b.png,4,6\n")
    _write_mask(root / "masks/c.png", size=(3, 3))
    message = _refusal(_splits_domain(root), output.with_name("other"))
    assert "images/b.png: expected 4x6 pixels as listed, got 6x4" in message
    assert "masks/c.png: expected 6x4 pixels like images/b.png, got 3x3" in message


def test_synthetic_images_lie_beside_their_manifest(output: Path) -> None:
    domain = SyntheticDomain(
        adapter="synthetic",
        tissue=Tissue.LYMPH_NODE,
        laboratory=Laboratory.HOME,
        classes=("normal", "metastatic"),
        background_class="normal",
        review=None,
        images=SplitSizes(train=2, val=1, test=2),
        image_size=64,
        seed=3,
    )
    manifest = prepare_domain(domain, output=output)
    assert sorted(path.name for path in output.iterdir()) == ["classes.json", "images", "manifest.csv", "masks"]
    assert read_manifest(output / "manifest.csv", root=None) == manifest == Manifest(manifest.rows, output)
    assert [(row.image, row.label) for row in manifest.rows] == [
        ("images/train_0000.png", "normal"),
        ("images/train_0001.png", "metastatic"),
        ("images/val_0000.png", "normal"),
        ("images/test_0000.png", "normal"),
        ("images/test_0001.png", "metastatic"),
    ]
    for row in manifest.rows:
        assert read_image(output / row.image).shape == (64, 64, 3)
        assert read_mask(output / row.mask).any() == (row.label == "metastatic")
