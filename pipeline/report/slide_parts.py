"""What the report says of whole slides, before it becomes a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, eq=False)
class FalseRegion:
    """A region that a model marks where nothing is.

    Attributes:
        area_mm2: its area.
        maximum: its highest probability.
        picture: PNG or the like of the slide around it; None shows none.
    """

    area_mm2: float
    maximum: float
    picture: bytes | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SlideCard:
    """What one model says of a slide.

    Attributes:
        slide: its name.
        label: its true class.
        is_normal: whether that is the class without lesions.
        model: by the name of its scores.
        score: of the slide as a whole, in [0, 1].
        dice: fraction; None where nothing is annotated, or not known to be.
        lesions: to be found; 0 where they are not known.
        found: of them.
        overview: PNG of the thumbnail with heat, tissue, regions and annotation on it.
        thumbnail: PNG of the slide alone; that of the first model's card is shown.
        false_positives: regions of a normal slide.
    """

    slide: str
    label: str
    is_normal: bool
    model: str
    score: float
    dice: float | None
    lesions: int
    found: int
    overview: bytes
    thumbnail: bytes
    false_positives: Sequence[FalseRegion] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class SlidesReport:
    """A domain's slides: by model its `SlideScores` as JSON has them, None for NaN; and a card per slide and model."""

    name: str
    scores: Mapping[str, Mapping[str, Any]]
    cards: Sequence[SlideCard]
