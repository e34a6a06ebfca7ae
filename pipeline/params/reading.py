"""A YAML file read and checked against what it must hold; every fault is said with its key."""

from pathlib import Path
from reprlib import Repr
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from pipeline.params.errors import PixelCAMError, shown

CheckedT = TypeVar("CheckedT", bound=BaseModel)


def read_sections(path: Path) -> dict[Any, Any]:
    """Read a YAML file whose content is a mapping.

    Raises:
        PixelCAMError: the file is missing, no YAML, no mapping, or holds a key twice.
    """
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))  # as DVC reads it
    except OSError as error:
        raise PixelCAMError(f"{path}: cannot be read ({error.strerror}); run from the project's root") from error
    except RecursionError as error:
        raise PixelCAMError(f"{path}: is not valid YAML: it is nested too deeply; restore the file") from error
    except DuplicateKeyError as error:
        key = (
            str(error.problem).partition('"')[2].partition('" with value')[0]
        )  # and then the values, which may be long
        raise PixelCAMError(
            f"{path}: is not valid YAML: the key {shown(key)} stands twice; keep one\n{error.problem_mark}"
        ) from error
    except (YAMLError, ValueError) as error:  # ValueError: bytes that are no UTF-8, a date that does not exist
        raise PixelCAMError(f"{path}: is not valid YAML: {error}; mend that place") from error
    if not isinstance(values, dict):
        raise PixelCAMError(
            f"{path}: expected a mapping of sections, got {type(values).__name__}; restore the file, or take one of "
            "presets/"
        )
    return values


def read_checked(kind: type[CheckedT], path: Path) -> CheckedT:
    """Read a YAML file and check its values.

    Raises:
        PixelCAMError: the file is missing, is no YAML mapping, or a value is unknown, missing, mistyped or out of
            range; the message lists every fault with its key.
    """
    values = read_sections(path)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = "\n".join(f"  {_describe(fault)}" for fault in error.errors(include_url=False, include_context=False))
        raise PixelCAMError(f"{path}: {error.error_count()} value(s) need mending\n{faults}") from error
    except RecursionError as error:
        raise PixelCAMError(f"{path}: a value holds itself, or is nested too deeply; write it out") from error


# What came may be large, or an alias of YAML that would grow without end when written out.
_SHORT: Final = Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = 100


def _describe(fault: ErrorDetails) -> str:
    """Turn one fault into 'section.key: expectation, got value'."""
    loc = fault["loc"]
    # Below a domain's name pydantic puts the adapter, which is no key of the file.
    parts = (*loc[:2], *loc[3:]) if loc[:1] == ("domains",) else loc
    key = ".".join(str(part) for part in parts) or "params"
    if fault["type"] == "extra_forbidden":
        return f"{key}: is not a parameter; remove it or mend its spelling"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing" or isinstance(fault["input"], dict):
        return f"{key}: {message}"
    return f"{key}: {message}, got {_SHORT.repr(fault['input'])}"
