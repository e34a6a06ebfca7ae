"""A YAML file of sections, read so that nothing in it is passed over: a key that stands twice is refused."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import PixelCAMError, shown


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, which by itself would let the last of two equal keys win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping; keys that come from a merge (<<) may be overridden, as YAML has it."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {shown(key.value)} stands twice; keep one", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_sections(path: Path) -> dict[Any, Any]:
    """Read a YAML file whose content is a mapping.

    Raises:
        PixelCAMError: the file is missing, no YAML, no mapping, or holds a key twice.
    """
    try:
        # _UniqueKeys is a SafeLoader: it makes plain values and nothing else.
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except OSError as error:
        raise PixelCAMError(f"{path}: cannot be read ({error.strerror}); run from the project's root") from error
    except RecursionError as error:
        raise PixelCAMError(f"{path}: is not valid YAML: it is nested too deeply; restore the file") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no UTF-8, a date that does not exist
        raise PixelCAMError(f"{path}: is not valid YAML: {error}; mend that place") from error
    if not isinstance(values, dict):
        raise PixelCAMError(
            f"{path}: expected a mapping of sections, got {type(values).__name__}; restore the file, or take one of "
            "presets/"
        )
    return values
