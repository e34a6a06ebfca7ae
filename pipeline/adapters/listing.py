"""What every adapter hands over, one neutral record per image, and how adapters read text and gather faults."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import PixelCAMError
from pipeline.manifest import Split
from pipeline.paths import relative_path

MAX_FAULTS_SHOWN = 20


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


def raise_faults(faults: Sequence[str], *, source: Path) -> None:
    """Raise one error that lists what is wrong with `source`, the first twenty in full; do nothing without faults.

    Raises:
        PixelCAMError: there is at least one fault.
    """
    if not faults:
        return
    lines = [f"  {fault}" for fault in faults[:MAX_FAULTS_SHOWN]]
    if len(faults) > MAX_FAULTS_SHOWN:
        lines.append(f"  ... and {len(faults) - MAX_FAULTS_SHOWN} more")
    raise PixelCAMError("\n".join([f"{source}: {len(faults)} fault(s) to mend; nothing was written", *lines]))


def read_text(path: Path) -> str:
    """Read a dataset's text file as UTF-8, with or without byte-order mark; any line end becomes a newline.

    Raises:
        PixelCAMError: the file is missing, unreadable or in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PixelCAMError(
            f"{path}: cannot be read ({error.strerror}); expected a text file of the dataset"
        ) from error
    except UnicodeDecodeError as error:
        raise PixelCAMError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
