"""Our own split: whole patients, the wanted sizes, the same every time."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.adapters.listing import Listing, move_to_train, patient_key, split_by_patient
from pipeline.data.manifest import Split
from pipeline.params.errors import PixelCAMError

Patients = list[tuple[str, str]]  # (label, patient) per image


def _listings(images: Patients) -> list[Listing]:
    return [
        Listing(
            image=f"{number}.png",
            mask="",
            ignore_mask="",
            label=label,
            patient=patient,
            split=None,
            mask_selectable=False,
            size=None,
        )
        for number, (label, patient) in enumerate(images)
    ]


IMAGES = st.lists(st.tuples(st.sampled_from(["benign", "malignant"]), st.sampled_from(["", *"abcdefghA"])), max_size=60)
FRACTIONS = st.tuples(st.integers(0, 10), st.integers(0, 10)).filter(lambda tenths: sum(tenths) <= 10)


@settings(deadline=None, max_examples=60)
@given(images=IMAGES, tenths=FRACTIONS, seed=st.integers(0, 5), order=st.randoms())
def test_patients_stay_whole_and_the_order_of_rows_has_no_influence(
    images: Patients, tenths: tuple[int, int], seed: int, order: Random
) -> None:
    listings = _listings(images)
    fractions = {"val_fraction": tenths[0] / 10, "test_fraction": tenths[1] / 10}
    split = split_by_patient(listings, **fractions, seed=seed)
    assert [(item.image, item.label, item.patient) for item in split] == [
        (item.image, item.label, item.patient) for item in listings
    ]
    split_of = {patient_key(item): item.split for item in split}
    assert all(item.split == split_of[patient_key(item)] for item in split)
    assert all(item.mask_selectable == (item.split == Split.VAL) for item in split)
    for name, fraction in (("val", tenths[0]), ("test", tenths[1]), ("train", 10 - sum(tenths))):
        if fraction == 0:
            assert name not in split_of.values()
        elif len(split_of) >= 3:
            assert name in split_of.values()
    shuffled = list(listings)
    order.shuffle(shuffled)
    again = split_by_patient(shuffled, **fractions, seed=seed)
    assert {item.image: item.split for item in again} == {item.image: item.split for item in split}


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=12, max_size=30),
    val=st.integers(10, 30),
    test=st.integers(10, 30),
    seed=st.integers(0, 3),
)
def test_sizes_miss_the_fractions_by_less_than_a_patient(sizes: list[int], val: int, test: int, seed: int) -> None:
    images = [("benign", f"p{patient}") for patient, size in enumerate(sizes) for _ in range(size)]
    split = split_by_patient(_listings(images), val_fraction=val / 100, test_fraction=test / 100, seed=seed)
    counts = Counter(item.split for item in split)
    for name, wanted in ((Split.VAL, val), (Split.TEST, test), (Split.TRAIN, 100 - val - test)):
        assert abs(counts[name] - wanted / 100 * len(images)) <= max(sizes)


def test_images_without_patient_are_split_exactly_within_each_class() -> None:
    images = [("benign", "")] * 40 + [("malignant", "")] * 20
    split = split_by_patient(_listings(images), val_fraction=0.2, test_fraction=0.3, seed=0)
    assert Counter((item.label, item.split) for item in split) == {
        ("benign", Split.TRAIN): 20,
        ("benign", Split.VAL): 8,
        ("benign", Split.TEST): 12,
        ("malignant", Split.TRAIN): 10,
        ("malignant", Split.VAL): 4,
        ("malignant", Split.TEST): 6,
    }


def test_classes_keep_their_proportion_where_patients_allow() -> None:
    images = [
        (label, f"{label}{patient}") for label in ("benign", "malignant") for patient in range(10) for _ in range(3)
    ]
    split = split_by_patient(_listings(images), val_fraction=0.2, test_fraction=0.3, seed=3)
    counts = Counter((item.label, item.split) for item in split)
    assert {counts[label, Split.VAL] for label in ("benign", "malignant")} == {6}
    assert {counts[label, Split.TEST] for label in ("benign", "malignant")} == {9}


def test_an_image_of_a_rare_class_weighs_more() -> None:
    patients = [(8, 1), (3, 2), (6, 0), (8, 1), (5, 2), (7, 2), (6, 1), (6, 1)]  # benign and malignant images of each
    images = [
        (label, f"p{patient}")
        for patient, counts in enumerate(patients)
        for label, count in zip(("benign", "malignant"), counts, strict=True)
        for _ in range(count)
    ]
    split = split_by_patient(_listings(images), val_fraction=0.2, test_fraction=0.2, seed=0)
    found = Counter(item.split for item in split if item.label == "malignant")
    assert found == {Split.TRAIN: 6, Split.VAL: 2, Split.TEST: 2}, "the share that is wanted, to the image"


def test_the_seed_matters_and_repeats() -> None:
    listings = _listings([("benign", f"p{patient}") for patient in range(30)])
    splits = [
        [item.split for item in split_by_patient(listings, val_fraction=0.2, test_fraction=0.3, seed=seed)]
        for seed in (0, 0, 1)
    ]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_patients_that_differ_in_case_alone_are_one() -> None:
    images = [("benign", "GTx1"), ("benign", "GTX1")] + [("benign", f"p{patient}") for patient in range(8)]
    split = split_by_patient(_listings(images), val_fraction=0.3, test_fraction=0.3, seed=0)
    assert split[0].split == split[1].split


@pytest.mark.parametrize(
    ("val", "test", "expected"), [(0.0, 1.0, Split.TEST), (1.0, 0.0, Split.VAL), (0.0, 0.0, Split.TRAIN)]
)
def test_one_split_takes_all(val: float, test: float, expected: Split) -> None:
    listings = _listings([("benign", "a"), ("malignant", "b"), ("benign", "")])
    split = split_by_patient(listings, val_fraction=val, test_fraction=test, seed=0)
    assert {item.split for item in split} == {expected}


def test_a_rest_of_rounding_is_no_training_split() -> None:
    listings = _listings([("benign", "")] * 20)
    split = split_by_patient(listings, val_fraction=0.85, test_fraction=0.15, seed=0)
    assert Counter(item.split for item in split) == {Split.VAL: 17, Split.TEST: 3}


def test_large_patients_leave_a_small_split_one() -> None:
    images = [("benign", patient) for patient in "abc" for _ in range(20)]
    split = split_by_patient(_listings(images), val_fraction=0.15, test_fraction=0.35, seed=0)
    assert Counter(item.split for item in split) == {Split.TRAIN: 20, Split.VAL: 20, Split.TEST: 20}


def test_nothing_gives_nothing() -> None:
    assert split_by_patient([], val_fraction=0.2, test_fraction=0.3, seed=0) == []


def _published(images: Patients, splits: list[Split]) -> list[Listing]:
    return [replace(item, split=split) for item, split in zip(_listings(images), splits, strict=True)]


@settings(deadline=None, max_examples=60)
@given(images=IMAGES, tenths=st.integers(1, 9), seed=st.integers(0, 5), data=st.data())
def test_whole_patients_move_from_test_to_train_and_nobody_else(
    images: Patients, tenths: int, seed: int, data: st.DataObject
) -> None:
    names = sorted({patient_key(item) for item in _listings(images)})
    placed = {name: data.draw(st.sampled_from(list(Split))) for name in names}
    listings = [replace(item, split=placed[patient_key(item)]) for item in _listings(images)]
    tested = {name for name, split in placed.items() if split == Split.TEST}
    if len(tested) == 1:
        with pytest.raises(PixelCAMError, match=r"adapt_fraction: expected at least two patients .* set it to 0"):
            move_to_train(listings, adapt_fraction=tenths / 10, seed=seed)
        return
    moved = move_to_train(listings, adapt_fraction=tenths / 10, seed=seed)
    assert [replace(item, split=None) for item in moved] == [replace(item, split=None) for item in listings]
    split_of: dict[tuple[str, str], set[Split | None]] = {}
    for item in moved:
        split_of.setdefault(patient_key(item), set()).add(item.split)
    assert all(found == {placed[name]} for name, found in split_of.items() if name not in tested)
    assert all(found in ({Split.TRAIN}, {Split.TEST}) for name, found in split_of.items() if name in tested)
    if tested:
        assert {split for name in tested for split in split_of[name]} == {Split.TRAIN, Split.TEST}
    assert move_to_train(listings, adapt_fraction=0.0, seed=seed) == listings


def test_the_share_is_met_within_each_class_and_drawn_by_the_seed() -> None:
    images = [("benign", "")] * 20 + [("malignant", "")] * 10 + [("benign", "")] * 6
    listings = _published(images, [Split.TEST] * 30 + [Split.VAL] * 6)
    drawn = [move_to_train(listings, adapt_fraction=0.4, seed=seed) for seed in (0, 0, 1)]
    assert Counter((item.label, item.split) for item in drawn[0]) == {
        ("benign", Split.TRAIN): 8,
        ("benign", Split.TEST): 12,
        ("malignant", Split.TRAIN): 4,
        ("malignant", Split.TEST): 6,
        ("benign", Split.VAL): 6,
    }
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
