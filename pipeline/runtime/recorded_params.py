"""DVC records the params of a stage as the file says when the stage ends, and the stage has read them when it began.

So a file that is edited meanwhile, or exchanged by a second `dvc exp run` in the same folder, would leave outputs in
DVC's cache under params that they were not made with.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.params.errors import PixelCAMError

STAGE: Final = "DVC_STAGE"  # set by DVC for what it runs: the stage's name, as prepare@colon


@contextmanager
def recorded_as_read(params: Path) -> Iterator[None]:
    """Let a stage that DVC runs fail at its end where DVC would record other params than the file held before.

    Args:
        params: the file. A change of what DVC does not record with this stage is none.

    Raises:
        PixelCAMError: the file has changed meanwhile; the message names the params.
    """
    stage = os.environ.get(STAGE)
    before = _read(params) if stage else b""
    yield
    if stage and _read(params) != before and (changed := [*_changed(_recorded(stage), _parsed(before))]):
        raise PixelCAMError(
            f"{params}: {', '.join(changed)} changed while this stage ran, and DVC would record the new value with "
            "what the old one gave; run the same again, and two experiments at once with dvc exp run --temp or --queue"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # whose stage says so


def _parsed(content: bytes) -> object:
    try:
        return YAML(typ="safe", pure=True).load(content)  # as DVC reads it
    except (YAMLError, ValueError):
        return None


def _recorded(stage: str) -> Mapping[str, Any]:
    """Return the params that DVC records with a stage, in their sections, as they are now; none that it cannot read."""
    from dvc.api import params_show  # noqa: PLC0415 - takes a second
    from dvc.exceptions import DvcException  # noqa: PLC0415

    try:
        recorded: Mapping[str, Any] = params_show(stages=stage)
    except DvcException:
        return {}  # DVC says so itself
    return recorded


def _changed(now: object, then: object, name: str = "") -> Iterator[str]:
    """Yield the names of the values that differ; of what is not recorded there is none now."""
    if isinstance(now, Mapping) and now and isinstance(then, Mapping):
        for key, value in now.items():
            yield from _changed(value, then.get(key), f"{name}.{key}" if name else str(key))
    elif now != then:
        yield name
