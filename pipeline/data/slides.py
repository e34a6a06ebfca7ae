"""The slides of a prepared domain: one table of what each is, beside the manifest of their tiles."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from pipeline.data.manifest import ManifestRow, Split
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.files import replacing_file

SLIDES: Final = "slides.csv"
LESIONS: Final = "lesions"  # the folder of files that say where the lesions of each slide are


@dataclass(frozen=True, kw_only=True)
class SlideRecord:
    """One slide of a prepared domain. Empty text stands for what is not known.

    Attributes:
        slide: POSIX path from the domain's root.
        name: by which its tiles and folders are called.
        label: class name.
        class_idx: index of the class.
        split: what the slide is for.
        patient: of the slide, else its name.
        lesions: GeoJSON of the lesions in pixels of level 0, from the prepared folder; "" where they are not known,
            as in a slide of another than the background class that nobody annotated.
        lesions_sha256: of that file.
        mpp: micrometres per pixel of level 0.
        width: of level 0 in pixels.
        height: likewise.
        tissue_mm2: area of tissue.
        tiles: in the manifest.
        slide_sha256: the slide's fingerprint.
    """

    slide: str
    name: str
    label: str
    class_idx: int
    split: Split
    patient: str
    lesions: str
    lesions_sha256: str
    mpp: float
    width: int
    height: int
    tissue_mm2: float
    tiles: int
    slide_sha256: str


_KINDS: Final[dict[str, Callable[[str], Any]]] = {field.name: str for field in fields(SlideRecord)} | {
    "split": Split,
    **dict.fromkeys(("class_idx", "width", "height", "tiles"), int),
    **dict.fromkeys(("mpp", "tissue_mm2"), float),
}


def write_slides(records: Sequence[SlideRecord], folder: Path) -> None:
    """Write `folder/slides.csv`, in the order of the records."""
    columns = [field.name for field in fields(SlideRecord)]
    table = pd.DataFrame([vars(record) for record in records], columns=columns)
    with replacing_file(folder / SLIDES) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_slides(folder: Path) -> tuple[SlideRecord, ...]:
    """Read the slides of a prepared domain; none of a domain that is not one of slides.

    Raises:
        PixelCAMError: the table is damaged.
    """
    path = folder / SLIDES
    if not path.exists():
        return ()
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        columns = [str(column) for column in table.columns]
        rows = [dict(zip(columns, values, strict=True)) for values in table.itertuples(index=False, name=None)]
        return tuple(SlideRecord(**{name: _KINDS[name](value) for name, value in row.items()}) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PixelCAMError(f"{path}: cannot be read ({error}); run the prepare stage of its domain again") from error


def count_tiles_again(folder: Path, rows: Iterable[ManifestRow]) -> None:
    """Let the table of slides say how many tiles each has in these rows of the manifest.

    Raises:
        PixelCAMError: as `read_slides`.
    """
    counts = Counter(row.slide for row in rows)
    write_slides([replace(record, tiles=counts[record.slide]) for record in read_slides(folder)], folder)
