"""Tiny datasets in the layouts that the adapters read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.params.types import GlasDomain, SplitsDomain, TableDomain
from pipeline.params.vocabulary import SharedPatients

PUBLISHED = "Warwick_QU_Dataset_(Released_2016_07_08)"
HEADER = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"
GRADES = (
    "train_1,1, malignant, moderately differentiated",
    "train_2,1, benign, healthy",
    "testA_1,22, benign, adenomatous",
)


def write_image(path: Path, *, value: int = 0, size: tuple[int, int] = (6, 4)) -> None:
    """Write an RGB image of one gray value; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def write_instances(path: Path, *, size: tuple[int, int] = (6, 4)) -> None:
    """Write a mask of instance ids: 0 on the left, 1 and 7 on the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.zeros((size[1], size[0]), dtype=np.uint8)
    ids[:, size[0] // 2 :] = 1
    ids[0, -1] = 7
    Image.fromarray(ids).save(path)


def write_glas(folder: Path, *, extension: str = ".bmp", rows: Sequence[str] = GRADES) -> None:
    """Write images, masks and a Grade.csv with bare carriage returns, as published."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        name = row.split(",")[0]
        write_image(folder / f"{name}{extension}", value=number)
        write_instances(folder / f"{name}_anno{extension}")
    (folder / "Grade.csv").write_bytes("\r".join([HEADER, *rows]).encode())


def write_split(folder: Path, *, labels: Mapping[str, object], masks: Mapping[str, str] | None = None) -> None:
    """Write the four files of one split; `masks` gives 'mask,ignore mask' per image."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "class_labels.txt").write_text("".join(f"{name},{label}\n" for name, label in labels.items()))
    (folder / "image_ids.txt").write_text("".join(f"{name}\n" for name in labels))
    (folder / "image_sizes.txt").write_text("".join(f"{name},6,4\n" for name in labels))
    if masks is not None:
        (folder / "localization.txt").write_text("".join(f"{name},{mask}\n" for name, mask in masks.items()))


def glas_domain(root: Path, *, splits: Path | None = None) -> GlasDomain:
    """Return a GlaS domain as params.yaml would describe it."""
    return GlasDomain(
        adapter="glas",
        root=root,
        splits=splits,
        classes=("benign", "malignant"),
        background_class=None,
        review=None,
        val_fraction=0.2,
        test_fraction=0.3,
        adapt_fraction=0.0,
        seed=0,
        shared_patients=SharedPatients.REJECT,
    )


def splits_domain(root: Path, *, splits: Path) -> SplitsDomain:
    """Return a domain with split files and a background class."""
    return SplitsDomain(
        adapter="splits",
        root=root,
        splits=splits,
        classes=("normal", "metastatic"),
        background_class="normal",
        review=None,
        val_fraction=0.0,
        test_fraction=0.0,
        adapt_fraction=0.0,
        seed=0,
        shared_patients=SharedPatients.REJECT,
    )


def table_domain(root: Path, *, table: str = "table.csv") -> TableDomain:
    """Return a domain of one CSV."""
    return TableDomain(
        adapter="table",
        root=root,
        table=Path(table),
        classes=("benign", "malignant"),
        background_class=None,
        review=None,
        val_fraction=0.2,
        test_fraction=0.3,
        adapt_fraction=0.0,
        seed=0,
        shared_patients=SharedPatients.REJECT,
    )
