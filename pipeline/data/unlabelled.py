"""A domain's images as a hospital may hand them over: no label, no mask, and no field that could hold one."""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.data.images import MIN_SIDE, SUFFIXES, decode_image
from pipeline.data.manifest import Manifest, ManifestRow, Split, read_domain
from pipeline.data.text_rows import raise_faults
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.types import GENERATED, SyntheticSlidesDomain
from pipeline.params.vocabulary import AdaptedTo
from pipeline.runtime.console import progress
from pipeline.runtime.files import sha256_of

SPLITS_OF: Final = {AdaptedTo.TRAIN_AND_VAL: (Split.TRAIN, Split.VAL), AdaptedTo.TEST: (Split.TEST,)}


@dataclass(frozen=True, kw_only=True, slots=True)  # slots: there may be millions
class UnlabelledImage:
    """One image, and where a tile of a slide lies; every field is as in `ManifestRow`."""

    image: str
    patient: str
    width: int
    height: int
    image_sha256: str
    slide: str = ""
    x: int = 0
    y: int = 0
    downsample: float = 0.0
    slide_sha256: str = ""


@dataclass(frozen=True)
class UnlabelledImages:
    """Images of one domain, the folder their paths start from, and the folder of the prepared domain if there is one.

    Both folders are as in `Manifest`.
    """

    rows: tuple[UnlabelledImage, ...]
    root: Path
    folder: Path | None

    def __len__(self) -> int:
        return len(self.rows)

    def labelled(self, class_idx: Sequence[int], *, classes: Sequence[str]) -> Manifest:
        """Return a manifest for training on classes that a model gave, in the same order; it has no masks.

        Args:
            class_idx: one index an image; below 0 where none is known, which is written as class 0.
            classes: class names in the order of their index.

        Raises:
            ValueError: there are more or fewer indices than images.
        """
        known = [max(index, 0) for index in class_idx]
        rows = (_labelled(row, index, classes[index]) for row, index in zip(self.rows, known, strict=True))
        return Manifest(tuple(rows), self.root, self.folder)


def _labelled(row: UnlabelledImage, class_idx: int, label: str) -> ManifestRow:
    return ManifestRow(
        image=row.image,
        mask="",
        ignore_mask="",
        label=label,
        class_idx=class_idx,
        split=Split.TRAIN,
        patient=row.patient,
        width=row.width,
        height=row.height,
        image_sha256=row.image_sha256,
        mask_sha256="",
        mask_selectable=False,
        slide=row.slide,
        x=row.x,
        y=row.y,
        downsample=row.downsample,
        slide_sha256=row.slide_sha256,
    )


@dataclass(frozen=True)
class UnlabelledDomain:
    """A domain by name, with what its classes mean (as in `PreparedDomain`) and images of which no class is known."""

    name: str
    classes: tuple[str, ...]
    background_class_idx: int | None
    images: UnlabelledImages


def read_unlabelled(name: str, params: Params, folder: Path, *, adapted_to: AdaptedTo) -> UnlabelledDomain:
    """Read the images of a prepared domain that a model is to be adapted to, in the order of its manifest.

    Args:
        name: as in params.yaml.
        params: say where the domain's files lie.
        folder: of the prepared domain.
        adapted_to: its training and validation images, or the very ones that are scored.

    Raises:
        PixelCAMError: there are none, or a file of the folder is missing or damaged.
    """
    domain = read_domain(name, params, folder)
    splits = SPLITS_OF[adapted_to]
    rows = tuple(_unlabelled(row) for row in domain.manifest.rows if row.split in splits)
    if not rows:
        raise PixelCAMError(
            f"{folder}: expected images of the domain '{name}' in {' or '.join(splits)} to adapt models to, got none; "
            f"{_remedy(name, params, adapted_to)}"
        )
    images = UnlabelledImages(rows, domain.manifest.root, domain.manifest.folder)
    return UnlabelledDomain(name, domain.classes, domain.background_class_idx, images)


def _unlabelled(row: ManifestRow) -> UnlabelledImage:
    return UnlabelledImage(
        image=row.image,
        patient=row.patient,
        width=row.width,
        height=row.height,
        image_sha256=row.image_sha256,
        slide=row.slide,
        x=row.x,
        y=row.y,
        downsample=row.downsample,
        slide_sha256=row.slide_sha256,
    )


def _remedy(name: str, params: Params, adapted_to: AdaptedTo) -> str:
    domain = params.domain(name)
    if adapted_to is AdaptedTo.TEST:
        return f"run 'dvc repro -f prepare@{name}'"
    if isinstance(domain, GENERATED):
        counts = "slides" if isinstance(domain, SyntheticSlidesDomain) else "images"
        return f"raise domains.{name}.{counts}.train"
    return f"set domains.{name}.adapt_fraction to the share of its test patients that models may look at, such as 0.5"


def unlabelled_files(paths: Sequence[Path]) -> UnlabelledImages:
    """Return image files from anywhere; each is decoded, for its size and to know that it can be.

    Args:
        paths: image files, and folders, of which every image is taken, those of their folders too, in the order of
            their names. Files in folders are known for images by their suffix; those beginning with a dot are not.

    Returns:
        Them in that order. `root` is the deepest folder that holds them all; patients are not known.

    Raises:
        PixelCAMError: names every path that does not exist, holds no image, cannot be read or is smaller than 4 pixels,
            and every image that is there twice, be it under two names.
    """
    if not paths:
        raise PixelCAMError("no image was given; name image files, or folders that hold some")
    found, faults = [], []
    for path in paths:
        files = list(_images_below(path)) if path.is_dir() else [path]
        if not files:
            faults.append(f"{path}: holds no image; expected files that end in {', '.join(SUFFIXES)}")
        found += [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100 - a link keeps the name it has here
    source = Path(os.path.commonpath([file.parent for file in found])) if found else paths[0]
    raise_faults([*faults, *_repeated([str(file) for file in found], found)], source=source)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # a file that Pillow doubts is either refused here, or fine
        checks = pool.map(lambda file: _check(file, root=source), found)
        checked = list(progress(checks, label="checking images", total=len(found)))
    rows = [row for row in checked if isinstance(row, UnlabelledImage)]
    faults = [fault for fault in checked if isinstance(fault, str)]
    faults += _repeated([row.image_sha256 for row in rows], [source / row.image for row in rows])
    raise_faults(faults, source=source)
    return UnlabelledImages(tuple(rows), source, None)


def _images_below(folder: Path) -> Iterator[Path]:
    """Yield the image files of a folder and of its folders, sorted, without what is hidden."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in SUFFIXES and not hidden and not path.is_dir():
            yield path


def _check(file: Path, *, root: Path) -> UnlabelledImage | str:
    """Return the image of a file, or what is wrong with it."""
    try:
        height, width, _ = decode_image(file).pixels.shape
        image_sha256 = sha256_of(file)
    except PixelCAMError as error:
        return str(error)
    if min(width, height) < MIN_SIDE:
        return f"{file}: expected at least {MIN_SIDE}x{MIN_SIDE} pixels, got {width}x{height}; leave it out"
    name = file.relative_to(root).as_posix()
    return UnlabelledImage(image=name, patient="", width=width, height=height, image_sha256=image_sha256)


def _repeated(keys: Sequence[str], files: Sequence[Path]) -> list[str]:
    """Return a fault for every group of files, or of times a file is named, that have one key."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for key, file in zip(keys, files, strict=True):
        groups[key].append(file)
    repeats = [group for group in groups.values() if len(group) > 1]
    return [
        f"{group[0]}: is given {len(group)} times; name it once"
        if len(set(group)) == 1
        else f"{' and '.join(str(file) for file in group)}: are the same file; keep one"
        for group in repeats
    ]
