"""How models are scored: the section `evaluate_ood`."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, Strict, model_validator

from pipeline.params.types import OpenFraction, PositiveFloat, PositiveInt, Section
from pipeline.params.vocabulary import TestTime, ThresholdRule, Weights


def _one_alone(value: object) -> object:
    """Let a name stand for the list of it."""
    return (value,) if isinstance(value, str) else value


class MaskFreeParams(Section):
    """What is presumed of maps where no mask is looked at."""

    foreground_share: OpenFraction
    temperature: Annotated[PositiveFloat, Field(ge=0.1, le=10)]


class EvaluationParams(Section):
    """How maps are compared with masks."""

    weights: Annotated[tuple[Weights, ...], BeforeValidator(_one_alone), Field(min_length=1)]
    test_time: tuple[TestTime, ...] = Field(min_length=1)
    threshold: ThresholdRule
    mask_free: MaskFreeParams
    map_size: Annotated[int, Strict(), Field(ge=16)]
    batch_size: PositiveInt
    resamples: Annotated[int, Strict(), Field(ge=100)]

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        for name, options in (("weights", self.weights), ("test_time", self.test_time)):
            if len(set(options)) != len(options):
                raise ValueError(f"{name} must not repeat an option, got {[option.value for option in options]}")
        return self
