"""What every adapter hands over, one neutral record per image; and a split of our own where a dataset has none."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import Split, relative_path
from pipeline.params.errors import PixelCAMError, named


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One image as its dataset describes it, nothing opened yet. Empty text stands for what is not known.

    `image`, `mask` and `ignore_mask` are POSIX paths relative to the domain's root. `split` is None where the dataset
    has no splits, and preparation then splits by patient. `size` is (width, height) in pixels where the dataset
    declares it.
    """

    image: str
    mask: str
    ignore_mask: str
    label: str
    patient: str
    split: Split | None
    mask_selectable: bool
    size: tuple[int, int] | None


def existing_path(text: str, *, root: Path) -> str:
    """Return a dataset's path relative to `root`, also where the dataset counts from the folder above the root.

    Split files of GlaS begin with the name of the folder that holds the images, which may itself be the root.

    Raises:
        PixelCAMError: as `relative_path`.
    """
    path = PurePosixPath(relative_path(text))
    below = PurePosixPath(*path.parts[1:])
    # os.path, unlike pathlib, takes a name that is too long for one that does not exist.
    if below.parts and not os.path.exists(root / path.parts[0]) and os.path.exists(root / below):  # noqa: PTH110
        return str(below)
    return str(path)


# Few patients are worth many tries; many patients come out even at the first.
MAX_TRIES = 200
MAX_PLACEMENTS = 20_000


def patient_key(listing: Listing) -> tuple[str, str]:
    """Return what an image is grouped by: its patient, whatever the letters' case; without one the image itself."""
    return ("patient", listing.patient.casefold()) if listing.patient else ("image", listing.image)


def split_by_patient(
    listings: Sequence[Listing], *, val_fraction: float, test_fraction: float, seed: int
) -> list[Listing]:
    """Give every image a split, patient by patient, close to the fractions in number of images of every class.

    Patients are placed from the largest to the smallest, each where it lowers most the squared distance to the wanted
    number of images per split and class; the best of several such orders is taken. The seed shuffles patients of
    similar size. The order of `listings` has no influence. A split with a fraction above 0 gets at least one patient
    where there are enough. Every val mask may be used for selection.
    """
    fractions = {Split.TRAIN: 1 - val_fraction - test_fraction, Split.VAL: val_fraction, Split.TEST: test_fraction}
    split_of = _split_of_patients(listings, fractions, seed=seed)
    return [
        replace(listing, split=split, mask_selectable=split == Split.VAL)
        for listing in listings
        for split in (split_of[patient_key(listing)],)
    ]


def move_to_train(listings: Sequence[Listing], *, adapt_fraction: float, seed: int) -> list[Listing]:
    """Move a share of the test images to train, patient by patient, so that models can be adapted to them.

    Patients are drawn as `split_by_patient` draws them. Other splits, and the order, stay as they are.

    Args:
        listings: each has a split.
        adapt_fraction: the share of the test images, in [0, 1); 0 moves none.
        seed: shuffles patients of similar size.

    Raises:
        PixelCAMError: the test images are all of one patient, who cannot be on both sides.
    """
    tested = [listing for listing in listings if listing.split == Split.TEST]
    if adapt_fraction == 0 or not tested:
        return list(listings)
    if len({patient_key(listing) for listing in tested}) == 1:
        raise PixelCAMError(
            f"adapt_fraction: expected at least two patients in the test split, one of them to adapt models to, got "
            f"{named(tested[0].patient or tested[0].image)} alone; set it to 0, or list more patients"
        )
    split_of = _split_of_patients(tested, {Split.TRAIN: adapt_fraction, Split.TEST: 1 - adapt_fraction}, seed=seed)
    return [
        replace(listing, split=split_of[patient_key(listing)]) if listing.split == Split.TEST else listing
        for listing in listings
    ]


def _split_of_patients(
    listings: Sequence[Listing], fractions: Mapping[Split, float], *, seed: int
) -> dict[tuple[str, str], Split]:
    """Return a split for every patient, by `patient_key`, so that splits have about their fraction of the images."""
    wanted = [split for split in Split if fractions.get(split, 0.0) > 1e-9]  # 1 - 0.85 - 0.15 is not quite 0
    keys = sorted({patient_key(listing) for listing in listings})
    counts = _images_per_class(listings, keys)  # (patient, class)
    placed = _place(counts, fractions=np.array([fractions[split] for split in wanted]), seed=seed)
    return {key: wanted[place] for key, place in zip(keys, placed, strict=True)}


def _images_per_class(listings: Sequence[Listing], keys: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    row = {key: i for i, key in enumerate(keys)}
    column = {label: i for i, label in enumerate(sorted({listing.label for listing in listings}))}
    counts = np.zeros((len(row), len(column)))
    for listing in listings:
        counts[row[patient_key(listing)], column[listing.label]] += 1
    return counts


def _place(counts: NDArray[np.float64], *, fractions: NDArray[np.float64], seed: int) -> list[int]:
    """Return the index into `fractions` for every patient of `counts`, (patient, class): the best of many tries."""
    generator = np.random.default_rng(seed)
    wanted = fractions[:, None] * counts.sum(axis=0)  # (split, class) images
    tries = max(1, min(MAX_TRIES, MAX_PLACEMENTS // max(1, len(counts))))
    orders = (_large_first(counts.sum(axis=1), generator=generator) for _ in range(tries))
    return min((_place_in_order(counts, wanted=wanted, order=order) for order in orders), key=lambda found: found[0])[1]


def _large_first(sizes: NDArray[np.float64], *, generator: np.random.Generator) -> list[int]:
    shuffled = generator.permutation(len(sizes)).tolist()
    return sorted(shuffled, key=lambda patient: -int(sizes[patient]).bit_length())


def _place_in_order(
    counts: NDArray[np.float64], *, wanted: NDArray[np.float64], order: Sequence[int]
) -> tuple[float, list[int]]:
    """Place patients one after the other; return the weighted squared distance from `wanted` and the places."""
    deficit = wanted.copy()
    placed = [-1] * len(counts)
    for patient in order:
        # The squared distance falls by 2 n d - n^2 when n images go where d are wanted.
        gain = (counts[patient] * (2 * deficit - counts[patient]) / wanted).sum(axis=1)
        placed[patient] = int(np.argmax(gain))
        deficit[placed[patient]] -= counts[patient]
    for place in range(len(wanted)):
        if place not in placed:
            _fill(placed, place=place, order=order)
    reached = np.stack([counts[np.array(placed) == place].sum(axis=0) for place in range(len(wanted))])
    return float(((reached - wanted) ** 2 / wanted).sum()), placed


def _fill(placed: list[int], *, place: int, order: Sequence[int]) -> None:
    """Move the smallest patient that can be spared to a split that got none."""
    patients = Counter(placed)
    spare = [patient for patient in order if patients[placed[patient]] > 1]
    if spare:
        placed[spare[-1]] = place
