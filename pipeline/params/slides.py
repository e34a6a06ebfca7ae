"""What params.yaml says of whole slides: where they show tissue, how they are read, and what is made of their maps."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from pipeline.params.types import NO_BOOL, PositiveFloat, PositiveInt, Section


class TissueParams(Section):
    """Where a slide shows tissue: by Otsu's threshold of its saturation.

    Attributes:
        mpp: micrometres per pixel at which tissue is looked for.
        smallest_speck: mm2; what is smaller is no tissue.
        largest_hole: mm2; what is smaller and within tissue is tissue.
    """

    mpp: Annotated[PositiveFloat, Field(ge=1, le=64)]
    smallest_speck: Annotated[float, NO_BOOL, Field(ge=0)]
    largest_hole: Annotated[float, NO_BOOL, Field(ge=0)]


class SlideParams(Section):
    """How a whole slide is read and what is made of its map.

    Attributes:
        tissue: where there is tissue; nothing else is looked at.
        window: side of a window in tiles: larger ones show the model more of what is around, if it takes them.
        overlap: of neighbouring windows, as a share of their side.
        map_stride: pixels of a window for a pixel of the map.
        batch_size: windows at a time.
        smallest_region: mm2; smaller regions are left out.
    """

    tissue: TissueParams
    window: Annotated[int, Strict(), Field(ge=1, le=16)]
    overlap: Annotated[float, NO_BOOL, Field(ge=0, le=0.75)]
    map_stride: Literal[1, 2, 4, 8, 16, 32]
    batch_size: PositiveInt
    smallest_region: Annotated[float, NO_BOOL, Field(ge=0)]
