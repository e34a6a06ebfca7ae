"""The kinds of values that params.yaml holds, and what every section of it has in common."""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    return value


# Whole numbers and flags are taken as written. Text may stand for a rate, since YAML makes text of 1e-4; true may not.
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
