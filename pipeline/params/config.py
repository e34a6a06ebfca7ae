"""Typed parameters: params.yaml is read and checked here, once, before any work begins."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from pipeline.params.adaptation import AdaptationParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.evaluation import EvaluationParams
from pipeline.params.reading import read_checked
from pipeline.params.slides import SlideParams
from pipeline.params.types import (
    NO_BOOL,
    AnyDomain,
    DomainName,
    FileDomain,
    Flag,
    Jitter,
    ModelFolder,
    OpenFraction,
    PositiveFloat,
    PositiveInt,
    Section,
    Seed,
)
from pipeline.params.vocabulary import (
    IGNORE,
    AdaptationMethod,
    Approach,
    CamMethod,
    Drawing,
    EncoderWeights,
    Evidence,
    ForegroundRule,
    Frozen,
    ImageHeadName,
    Initialization,
    LossResolution,
    OptimizerName,
    PixelClasses,
    PixelHeadName,
    Refinement,
    Regularization,
    Schedule,
    Selection,
    TestTime,
)


def _must_be_safetensors(path: Path) -> Path:
    if path.suffix != ".safetensors":
        known = ", ".join(EncoderWeights)
        raise ValueError(f"must be one of {known}, or a file that ends with .safetensors")
    return path


WeightsFile = Annotated[Path, AfterValidator(_must_be_safetensors)]


class EncoderParams(Section):
    """Which timm model, and what it starts from: a choice, or a file of weights."""

    name: Annotated[str, Field(min_length=1)]
    weights: Annotated[EncoderWeights | WeightsFile, Field(union_mode="left_to_right")]


def _name_alone(value: object) -> object:
    """Let `encoder: NAME` stand for that model with the weights that can be had."""
    return {"name": value, "weights": EncoderWeights.AUTO} if isinstance(value, str) else value


class ModelParams(Section):
    """What both models have in common, and the head that PixelCAM has besides."""

    image_head: ImageHeadName
    pixel_head: PixelHeadName
    pixel_classes: PixelClasses
    output_stride: Literal[8, 16, 32] | None
    input_size: Annotated[int, Strict(), Field(ge=32)]


class AugmentationParams(Section):
    """Random views of training images; ranges as in torchvision's ColorJitter."""

    enlarge: Annotated[float, NO_BOOL, Field(ge=1, le=4)]
    flip: Flag
    rotate: Flag
    brightness: Jitter
    contrast: Jitter
    saturation: Jitter
    hue: Annotated[float, NO_BOOL, Field(ge=0, le=0.5)]
    stain: Jitter
    blur: Annotated[float, NO_BOOL, Field(ge=0, le=8)]
    zoom: Annotated[float, NO_BOOL, Field(ge=0, le=3)]


class TrainingParams(Section):
    """What the one training loop needs, for the teacher and for PixelCAM alike."""

    steps: PositiveInt
    batch_size: PositiveInt
    optimizer: OptimizerName
    learning_rate: PositiveFloat
    head_learning_rate: PositiveFloat
    weight_decay: Annotated[float, NO_BOOL, Field(ge=0)]
    schedule: Schedule
    selection: Selection
    keep: tuple[Selection, ...]
    frozen: Frozen
    layer_decay: Annotated[float, NO_BOOL, Field(gt=0, le=1)]
    compile: Flag


class TeacherParams(TrainingParams):
    """The teacher's training."""

    regularization: Regularization


class PixelCAMParams(TrainingParams):
    """The joint training: how it starts, and what its pixel loss is."""

    approach: Approach
    initialization: Initialization
    pixel_loss_weight: Annotated[float, NO_BOOL, Field(ge=0)]
    foreground_pixels: PositiveInt
    background_pixels: PositiveInt
    foreground_drawing: Drawing
    redraw: Flag
    loss_resolution: LossResolution

    @model_validator(mode="after")
    def _check_approach(self) -> Self:
        if self.approach in (Approach.TWO_STEP, Approach.NEGEV) and self.initialization is not Initialization.TEACHER:
            raise ValueError(
                f"approach '{self.approach}' freezes the teacher's classifier; set initialization: teacher"
            )
        if not self.redraw and self.loss_resolution is LossResolution.FEATURE:
            # A few dozen pixels hardly ever lie at the centre of a cell, so that next to none would be left.
            raise ValueError("redraw: false keeps single pixels of an image; set loss_resolution: full")
        return self


LAST_LAYER_METHODS: Final = (CamMethod.CAM, CamMethod.ROLLOUT, CamMethod.TSCAM, CamMethod.SAT)


class MapParams(Section):
    """Over which views of an image a map is averaged: input sizes, symmetries of the square at each, and a margin.

    The margin is what an image is continued by on each side, mirrored, before its map is read and cut again: a share
    of its side. So no pixel of it lies at a border, where an encoder pads with zeros.
    """

    scales: tuple[Annotated[float, NO_BOOL, Field(gt=0, le=4)], ...] = Field(min_length=1)
    symmetries: Literal[1, 2, 4, 8]
    margin: Annotated[float, NO_BOOL, Field(ge=0, le=0.5)]

    @property
    def image_scale(self) -> float:
        """Return how much larger than a model's input images are to be read, so that every view has its detail."""
        return max(1.0, *self.scales)


class CamParams(MapParams):
    """How the teacher's CAM is read, for pseudo-labels and for its own score alike."""

    method: CamMethod
    layers: tuple[Annotated[int, Strict()], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if self.method in LAST_LAYER_METHODS and self.layers != (-1,):
            raise ValueError(f"method '{self.method}' makes one map, of the last layer; set layers: [-1]")
        return self


class ExtractionParams(Section):
    """Where a CAM is cut into pseudo-labels."""

    batch_size: PositiveInt
    refine: Refinement
    foreground_rule: ForegroundRule
    foreground_threshold: OpenFraction
    foreground_fraction: OpenFraction
    background_fraction: OpenFraction
    erosion: Annotated[int, Strict(), Field(ge=0)]


class ReportParams(Section):
    """What the report shows."""

    images_per_domain: PositiveInt
    web: bool


class Params(Section):
    """The whole of params.yaml."""

    source: DomainName
    target_domains: tuple[DomainName, ...] = Field(min_length=1)
    encoder: Annotated[EncoderParams, BeforeValidator(_name_alone)]
    seed: Seed
    seeds: tuple[Seed, ...]
    domains: dict[DomainName, AnyDomain]
    model: ModelParams
    augmentation: AugmentationParams
    train_teacher: TeacherParams
    cam: CamParams
    extract_pseudo_labels: ExtractionParams
    train_pixelcam: PixelCAMParams
    rounds: dict[ModelFolder, ModelFolder]
    pixelcam_map: MapParams
    adaptation: dict[DomainName, AdaptationParams]
    bounds: tuple[DomainName, ...]
    slides: SlideParams
    evaluate_ood: EvaluationParams
    report: ReportParams

    @model_validator(mode="after")
    def _check_teacher(self) -> Self:
        if self.cam.method is CamMethod.SAT and self.model.image_head is not ImageHeadName.SAT:
            raise ValueError(
                f"cam.method 'sat' reads the map of image_head sat, and model.image_head is '{self.model.image_head}'"
            )
        return self

    @model_validator(mode="after")
    def _check_seeds(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ from each other, got {list(self.seeds)}")
        return self

    @model_validator(mode="after")
    def _check_rounds(self) -> Self:
        known = ["pixelcam"]
        for name, previous in self.rounds.items():
            if name in (*known, "teacher"):
                raise ValueError(f"rounds: '{name}' is the name of another model; call it round_2, round_3, ...")
            if previous not in known:
                raise ValueError(f"rounds: '{name}' learns from '{previous}', which must be one of {', '.join(known)}")
            known.append(name)
        return self

    @model_validator(mode="after")
    def _check_domains(self) -> Self:
        known = ", ".join(sorted(self.domains))
        for name in (self.source, *self.target_domains):
            if name not in self.domains:
                raise ValueError(f"'{name}' is named as a domain but not described under domains (there are: {known})")
        if len(set(self.target_domains)) != len(self.target_domains):
            raise ValueError(f"target_domains must not repeat a name, got {list(self.target_domains)}")
        if self.source not in self.target_domains:
            raise ValueError(f"target_domains must contain the source '{self.source}', which gives the in-domain score")
        class_count = len(self.domains[self.source].classes)
        if self.model.pixel_classes is PixelClasses.IMAGE_CLASSES and class_count >= IGNORE:
            raise ValueError(
                f"model.pixel_classes 'image_classes' takes up to {IGNORE - 1} classes, since the label {IGNORE} means "
                f"ignore, and the source '{self.source}' has {class_count}; set it to foreground"
            )
        for name in self.target_domains:
            if len(self.domains[name].classes) != class_count:
                raise ValueError(
                    f"domain '{name}' has {len(self.domains[name].classes)} classes and the source '{self.source}' has "
                    f"{class_count}: classes are matched by their position, so list as many"
                )
        return self

    @model_validator(mode="after")
    def _check_adaptation(self) -> Self:
        for section, names in (("adaptation", list(self.adaptation)), ("bounds", list(self.bounds))):
            for name in names:
                without = f"; or do without: -S '~adaptation.{name}'" if section == "adaptation" else ""
                if name == self.source:
                    raise ValueError(
                        f"{section}: '{name}' is the source, which the models know; name another domain{without}"
                    )
                if name not in self.target_domains:
                    raise ValueError(
                        f"{section}: '{name}' must be one of target_domains, where it is scored; add it there{without}"
                    )
        if len(set(self.bounds)) != len(self.bounds):
            raise ValueError(f"bounds must not repeat a name, got {list(self.bounds)}")
        home = self.domains[self.source]
        if isinstance(home, FileDomain) and home.adapt_fraction > 0:
            raise ValueError(
                f"domains.{self.source}.adapt_fraction: moves test images to train, and the source's would be learned "
                "from with their labels; set it to 0.0"
            )
        for name, adaptation in self.adaptation.items():
            if adaptation.model != self.final_model:
                raise ValueError(
                    f"adaptation.{name}.model: '{adaptation.model}' is not the model of the last round; set it to "
                    f"{self.final_model}"
                )
            by_pixels = adaptation.method is AdaptationMethod.SELF_TRAINING and adaptation.evidence is Evidence.PIXELS
            if by_pixels and self.domains[name].background_class is None:
                raise ValueError(
                    f"adaptation.{name}.evidence: 'pixels' tells images with foreground from those without, and the "
                    f"domain has no background_class; give it one, or set it to image_head"
                )
        if self.adaptation and self.evaluate_ood.test_time[0] is TestTime.BATCH_NORM:
            raise ValueError(
                "evaluate_ood.test_time: 'batch_norm' first would adapt adapted models once more, by the images that "
                "they are scored on; put none first"
            )
        return self

    @property
    def pixel_head(self) -> PixelHeadName:
        """Return the pixel head that is trained: `negev` brings its own, as published."""
        return PixelHeadName.DECODER if self.train_pixelcam.approach is Approach.NEGEV else self.model.pixel_head

    @property
    def final_model(self) -> str:
        """Return the folder name of the model of the last round, the one that is scored beside the teacher."""
        return list(self.rounds)[-1] if self.rounds else "pixelcam"

    def domain(self, name: str) -> AnyDomain:
        """Return the description of a domain; raise a `PixelCAMError` if there is none of that name."""
        if name not in self.domains:
            raise PixelCAMError(f"domains: there is no '{name}' (there are: {', '.join(sorted(self.domains))})")
        return self.domains[name]


def load_params(path: Path | str) -> Params:
    """Read and check a params.yaml; errors as `read_checked`."""
    return read_checked(Params, Path(path))
