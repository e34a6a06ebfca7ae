"""What is told about data that is accepted all the same: one line per kind, with a count, however many files."""

from collections.abc import Iterable
from enum import StrEnum

from pipeline.console import say
from pipeline.errors import named


class Remark(StrEnum):
    """What reading a file converted, or what looks wrong and may be right."""

    GRAY = "gray images, read as RGB with three equal channels"
    PALETTE = "images with a palette, read as RGB by its colours"
    COLOUR_SPACE = "images in CMYK, YCbCr or HSV, read as RGB without a colour profile"
    OPAQUE = "images with an alpha channel that is opaque, which is dropped"
    OTHER_FORMAT = "files in another format than their name says, read as what they are"
    SEVERAL_VALUES = "masks with several values, such as instance ids: every value but 0 is foreground"
    SOFT_EDGES = "masks with soft edges: foreground is what is above half of white (127 of 255)"
    INVERTED = "masks that look inverted, foreground all along the border and none within: 0 must be background"


def tell(remarks: Iterable[tuple[Remark, str]], *, source: object) -> None:
    """Print a line for each kind of remark on `source`, given with the file that it is about."""
    files: dict[Remark, list[str]] = {}
    for remark, file in remarks:
        files.setdefault(remark, []).append(file)
    for remark in Remark:
        if found := files.get(remark):
            warning = "warning: " if remark is Remark.INVERTED else ""
            say(f"{warning}{source}: {len(found)} {remark} (the first: {named(found[0])})")
