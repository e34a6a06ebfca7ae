"""Rendered domains: same bytes every time and with any number of processes, splits that do not depend on each other."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from pipeline.data.adapters import synthetic
from pipeline.data.adapters.synthetic import render_synthetic
from pipeline.data.manifest import Split
from pipeline.params.types import SplitSizes, SyntheticDomain
from pipeline.params.vocabulary import Laboratory, Tissue


def _domain(*, train: int = 3, seed: int = 0) -> SyntheticDomain:
    return SyntheticDomain(
        adapter="synthetic",
        tissue=Tissue.COLON,
        laboratory=Laboratory.HOME,
        classes=("benign", "malignant"),
        background_class=None,
        review=None,
        images=SplitSizes(train=train, val=1, test=2),
        image_size=64,
        seed=seed,
    )


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_files_and_listings_agree(tmp_path: Path) -> None:
    listings = render_synthetic(_domain(), folder=tmp_path, workers=1)
    assert [(item.image, item.label, item.split, item.mask_selectable) for item in listings] == [
        ("images/train_0000.png", "benign", Split.TRAIN, False),
        ("images/train_0001.png", "malignant", Split.TRAIN, False),
        ("images/train_0002.png", "benign", Split.TRAIN, False),
        ("images/val_0000.png", "benign", Split.VAL, True),
        ("images/test_0000.png", "benign", Split.TEST, False),
        ("images/test_0001.png", "malignant", Split.TEST, False),
    ]
    assert set(_checksums(tmp_path)) == {path for item in listings for path in (item.image, item.mask)}
    with Image.open(tmp_path / "masks/train_0000.png") as mask:
        assert (mask.mode, mask.size) == ("1", (64, 64))


def test_bytes_repeat_with_any_number_of_processes(tmp_path: Path) -> None:
    for workers in (1, 2):
        render_synthetic(_domain(), folder=tmp_path / str(workers), workers=workers)
    assert _checksums(tmp_path / "1") == _checksums(tmp_path / "2")


def test_every_image_differs_and_the_seed_changes_them(tmp_path: Path) -> None:
    for seed in (0, 1):
        render_synthetic(_domain(seed=seed), folder=tmp_path / str(seed), workers=1)
    images = [checksum for name, checksum in _checksums(tmp_path).items() if "images" in name]
    assert len(images) == len(set(images)) == 12


def test_images_are_numbered_split_by_split_which_decides_how_they_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    monkeypatch.setattr(synthetic, "_render", lambda job: numbers.append(job.index))
    render_synthetic(_domain(), folder=tmp_path, workers=1)
    assert numbers == [0, 1, 2, 1_000_000, 2_000_000, 2_000_001]


def test_more_training_images_leave_the_others_as_they_are(tmp_path: Path) -> None:
    for train in (2, 3):
        render_synthetic(_domain(train=train), folder=tmp_path / str(train), workers=1)
    assert _checksums(tmp_path / "2").items() < _checksums(tmp_path / "3").items()
