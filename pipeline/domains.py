"""A prepared domain: what its classes mean and which images it has, found in one folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.config import Params
from pipeline.domain_params import AnyDomain, SyntheticDomain
from pipeline.errors import PixelCAMError
from pipeline.files import write_json
from pipeline.manifest import Manifest, read_manifest

MANIFEST: Final = "manifest.csv"
CLASSES: Final = "classes.json"


@dataclass(frozen=True)
class PreparedDomain:
    """A domain by name.

    Attributes:
        name: as in params.yaml.
        classes: class names in the order of `class_idx`.
        background_class_idx: the class whose images hold no region of interest, None where every class has one.
        manifest: the images that were prepared.
    """

    name: str
    classes: tuple[str, ...]
    background_class_idx: int | None
    manifest: Manifest


def write_classes(folder: Path, domain: AnyDomain) -> None:
    """Write what the classes of a domain mean, so that later stages depend on it and not on where its files lie."""
    write_json(folder / CLASSES, {"classes": list(domain.classes), "background_class_idx": domain.background_class_idx})


def read_domain(name: str, params: Params, folder: Path) -> PreparedDomain:
    """Read a prepared domain; image paths start from the domain's root, or from the folder if it was generated.

    Raises:
        PixelCAMError: a file of the folder is missing or damaged.
    """
    domain = params.domain(name)
    root = None if isinstance(domain, SyntheticDomain) else domain.root
    path = folder / CLASSES
    try:
        classes, background_class_idx = _read_classes(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PixelCAMError(f"{path}: cannot be read ({error}); run 'dvc repro -f prepare@{name}'") from error
    manifest = read_manifest(folder / MANIFEST, root=root)
    for row in manifest.rows:
        if row.class_idx >= len(classes):
            raise PixelCAMError(
                f"{folder / MANIFEST}: {row.image} has class index {row.class_idx}, but {CLASSES} lists {len(classes)} "
                f"classes; run 'dvc repro -f prepare@{name}'"
            )
    return PreparedDomain(name, classes, background_class_idx, manifest)


def _read_classes(path: Path) -> tuple[tuple[str, ...], int | None]:
    """Return class names and the index of the background class; raise what Python raises where they are not there."""
    meaning = json.loads(path.read_text(encoding="utf-8"))
    classes, background_class_idx = meaning["classes"], meaning["background_class_idx"]
    if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
        raise ValueError("classes must be a list of names")
    if background_class_idx is not None and background_class_idx not in range(len(classes)):
        raise ValueError(f"background_class_idx must be null or an index of classes, got {background_class_idx!r}")
    return tuple(classes), background_class_idx
