"""The kinds of values that params.yaml holds, what all sections have in common, and what a domain's section may say."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from pipeline.params.vocabulary import TWO_PIXEL_CLASSES, AnnotationRole, Laboratory, SharedPatients, Tissue


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    return value


# Whole numbers and flags are taken as written. Text may stand for a rate, true may not.
NO_BOOL: Final = BeforeValidator(_refuse_bool)
Flag = Annotated[bool, Strict()]
Fraction = Annotated[float, NO_BOOL, Field(ge=0, le=1)]
OpenFraction = Annotated[float, NO_BOOL, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Strict(), Field(ge=1)]
PositiveFloat = Annotated[float, NO_BOOL, Field(gt=0)]
Jitter = Annotated[float, NO_BOOL, Field(ge=0, le=1)]
Seed = Annotated[int, Strict(), Field(ge=0)]
ModelFolder = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
DomainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Domain(Section):
    """What every domain has, whatever its adapter.

    `classes` lists class names in the order of `class_idx`; `review` is a table of images that a person left out or
    corrected, from the working folder, None where nobody looked.
    """

    classes: tuple[str, ...] = Field(min_length=2)
    background_class: str | None
    review: Path | None

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must differ from each other, got {list(self.classes)}")
        if self.background_class is not None and self.background_class not in self.classes:
            raise ValueError(
                f"background_class must be null or one of {list(self.classes)}, got '{self.background_class}'"
            )
        background = TWO_PIXEL_CLASSES[0]
        if background in self.classes and self.background_class != background:
            raise ValueError(
                f"'{background}' is what pixels outside of every region are called: a class of this name must be the "
                "background_class, or have another name"
            )
        return self

    @property
    def background_class_idx(self) -> int | None:
        """Return the index of the class whose images hold no region of interest, None where every class has one."""
        return None if self.background_class is None else self.classes.index(self.background_class)


class SplitSizes(Section):
    """How many images each split of a synthetic domain has."""

    train: PositiveInt
    val: PositiveInt
    test: PositiveInt


PAINTED_CLASSES: Final = {Tissue.COLON: 3, Tissue.LYMPH_NODE: 2}


class SyntheticDomain(Domain):
    """A domain that is rendered, from a seed."""

    adapter: Literal["synthetic"]
    tissue: Tissue
    laboratory: Laboratory
    images: SplitSizes
    image_size: Annotated[int, Strict(), Field(ge=64, le=2048)]
    seed: Seed

    @model_validator(mode="after")
    def _check_painted(self) -> Self:
        most = PAINTED_CLASSES[self.tissue]
        if len(self.classes) > most:
            raise ValueError(f"tissue '{self.tissue}' is painted in up to {most} classes, got {len(self.classes)}")
        return self


class FileDomain(Domain):
    """A domain of image files under `root`.

    Without published splits, patients are split by `val_fraction` and `test_fraction`. Of what is to be scored then,
    the share `adapt_fraction` is moved to train, so that models can be adapted to it.
    """

    root: Path
    val_fraction: Fraction
    test_fraction: Fraction
    adapt_fraction: Annotated[float, NO_BOOL, Field(ge=0, lt=1)]
    seed: Seed
    shared_patients: SharedPatients

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        if self.val_fraction + self.test_fraction > 1:
            raise ValueError("val_fraction + test_fraction must be at most 1, the rest is for training")
        return self


class GlasDomain(FileDomain):
    """The GlaS challenge's folder as published; `splits` None means a split by patient."""

    adapter: Literal["glas"]
    splits: Path | None


class SplitsDomain(FileDomain):
    """Any dataset with split files in the format of "Evaluating WSOL Methods Right"."""

    adapter: Literal["splits"]
    splits: Path


class TableDomain(FileDomain):
    """Any dataset with a CSV of images, labels and what else is known."""

    adapter: Literal["table"]
    table: Path


class TilesDomain(Domain):
    """What a domain of whole slides has, whatever they come from: how tiles are cut from them, and what they are.

    Attributes:
        mpp: micrometres per pixel of a tile.
        tile_size: side of a tile in pixels; tiles lie side by side.
        tiles_per_slide: at most so many, drawn by the seed; those of a lesion are all kept.
        tissue_share: a tile is taken where at least this share of it is tissue.
        lesion_share: a tile shows its slide's class where at least this share of it is annotated.
        doubt_share: and the background class where at most this share is; between the two it is left out.
        annotation_groups: what the groups of an annotation file mean; others are refused.
    """

    mpp: Annotated[PositiveFloat, Field(ge=0.05, le=32)]
    tile_size: Annotated[int, Strict(), Field(ge=64, le=4096)]
    tiles_per_slide: PositiveInt
    tissue_share: OpenFraction
    lesion_share: OpenFraction
    doubt_share: Fraction
    annotation_groups: dict[str, AnnotationRole]
    seed: Seed

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.doubt_share >= self.lesion_share:
            raise ValueError(
                f"doubt_share must be below lesion_share, got {self.doubt_share} and {self.lesion_share}: what lies "
                "between them is left out"
            )
        return self


class SlidesDomain(TilesDomain, FileDomain):
    """Whole slides with a CSV of their labels and what else is known."""

    adapter: Literal["slides"]
    table: Path


class SyntheticSlidesDomain(TilesDomain):
    """Whole slides of lymph nodes that are rendered, from a seed."""

    adapter: Literal["synthetic_slides"]
    slides: SplitSizes
    slide_size: Annotated[int, Strict(), Field(ge=1024, le=65536)]

    @model_validator(mode="after")
    def _check_painted(self) -> Self:
        if len(self.classes) != 2 or self.background_class != self.classes[0]:
            raise ValueError("slides are painted in two classes, of which the first is the background_class")
        return self


GENERATED: Final = (SyntheticDomain, SyntheticSlidesDomain)  # whose files lie in the folder of the prepared domain
AnyDomain = Annotated[
    SyntheticDomain | GlasDomain | SplitsDomain | TableDomain | SlidesDomain | SyntheticSlidesDomain,
    Field(discriminator="adapter"),
]
