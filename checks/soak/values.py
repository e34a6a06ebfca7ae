"""Random values of parameters, by the JSON schema of the models that check them: ranges and choices stand there."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import exp, log
from typing import Any, Final, TypeVar

from pipeline.params.config import Params

Schema = Mapping[str, Any]
Address = tuple[str, ...]
Number = TypeVar("Number", int, float)

# A run must end in seconds. Whole numbers without a cap may become huge: they cost nothing.
CAPS: Final[Mapping[str, int]] = {
    "steps": 6,
    "input_size": 112,
    "image_size": 128,
    "map_size": 128,
    "resamples": 300,
    "train": 6,
    "val": 4,
    "test": 4,
    "slide_size": 1280,
    "tile_size": 128,
    "window": 4,
    "foreground_pixels": 100_000,
    "background_pixels": 100_000,
}
KEPT: Final = {  # and these stay as they are
    "compile": "compiling takes minutes",
    "adapter": "another adapter is another domain",
    "root": "a place",
    "table": "a place",
    "review": "a place",
    "annotation_groups": "of the slides that are rendered",
    "classes": "several domains have to agree on them",
    "mpp": "a fine one makes slides of gigabytes",
    "model": "the model of the last round",
}
ENCODERS: Final = (  # timm's tiniest, which need no download, one of each kind
    "test_efficientnet",
    "test_efficientnet_gn",
    "test_resnet",
    "test_byobnet",
    "test_convnext",
    "test_nfnet",
    "test_mambaout",
    "test_vit",
    "test_vit3",
    "test_maxvit",
)
HUGE: Final = (2**31, 2**32, 2**63, 2**64, 10**30)
NEAR: Final = 0.7  # share of numbers that lie near the present one
EDGE: Final = 0.9  # and up to here at the ends of their range; the rest is as far out as a number goes


@dataclass(frozen=True)
class Leaf:
    """One parameter: where it stands, what the schema says of it, and its present value."""

    address: Address
    schema: Schema
    value: object


@cache
def params_schema() -> Schema:
    """Return the JSON schema of a whole params.yaml."""
    return Params.model_json_schema()


def leaves(values: Mapping[str, Any], schema: Schema | None = None, address: Address = ()) -> Iterator[Leaf]:
    """Yield every parameter of a params.yaml that may be changed by itself."""
    for key, value in values.items():
        inner = _of_key(schema or params_schema(), key, values)
        here = (*address, key)
        if key in KEPT and address:  # no section as such
            continue
        if isinstance(value, Mapping):
            yield from leaves(value, inner, here)
        else:
            yield Leaf(here, inner, value)


def _of_key(schema: Schema, key: str, values: Mapping[str, Any]) -> Schema:
    """Return the schema of what stands under a key of a mapping."""
    found = _resolve(schema, values)
    if key in found.get("properties", {}):
        return _resolve(found["properties"][key], values.get(key))
    return _resolve(next(iter(found["patternProperties"].values())), values.get(key))


def _resolve(schema: Schema, value: object) -> Schema:
    """Follow references, and of several adapters take that of the value."""
    if "discriminator" in schema and isinstance(value, Mapping):
        schema = {"$ref": schema["discriminator"]["mapping"][value["adapter"]]}
    while "$ref" in schema:
        schema = params_schema()["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def draw_value(source: random.Random, leaf: Leaf) -> object:
    """Return another value for a parameter, within what its schema says."""
    if leaf.address == ("encoder", "name"):
        return source.choice(ENCODERS)
    return _draw(source, leaf.schema, leaf.value, CAPS.get(leaf.address[-1]))


def _draw(source: random.Random, schema: Schema, now: object, cap: int | None) -> object:
    schema = _resolve(schema, now)
    if "anyOf" in schema:
        branches = [_resolve(branch, now) for branch in schema["anyOf"]]
        return _draw(source, source.choice([branch for branch in branches if branch.get("format") != "path"]), now, cap)
    kind = "enum" if "enum" in schema else schema.get("type")
    if kind == "enum":
        return source.choice(schema["enum"])
    if kind == "integer":
        return _whole(source, schema, now, cap)
    if kind == "number":
        return _number(source, schema, now)
    if kind == "array":
        return _several(source, schema, now, cap)
    # Text names something, and stays as it is.
    return source.random() < 0.5 if kind == "boolean" else None if kind == "null" else now


def _several(source: random.Random, schema: Schema, now: object, cap: int | None) -> list[object]:
    """Draw one to three items, none twice."""
    known = list(now) if isinstance(now, (list, tuple)) else []
    items: list[object] = []
    for _ in range(source.randint(schema.get("minItems", schema.get("minLength", 0)), 3)):
        item = _draw(source, schema["items"], source.choice(known) if known else None, cap)
        items += [item] if item not in items else []
    return items


def _bounds(schema: Schema) -> tuple[float | None, float | None]:
    """Return the least and the largest value; pydantic has two names for each."""
    low = next((schema[key] for key in ("minimum", "ge", "exclusiveMinimum", "gt") if key in schema), None)
    high = next((schema[key] for key in ("maximum", "le", "exclusiveMaximum", "lt") if key in schema), None)
    return low, high


def _whole(source: random.Random, schema: Schema, now: object, cap: int | None) -> int:
    low, high = (None if bound is None else int(bound) for bound in _bounds(schema))
    if low is None:
        return source.randint(-4, 1)  # a depth of an encoder: the one kind of whole number that may be negative
    high = min((bound for bound in (high, cap) if bound is not None), default=None)
    start = int(now) if isinstance(now, int) else low
    kind = source.random()
    if kind < NEAR:
        return _clip(source.randint(start // 2, 2 * start + 1), low, high)
    if kind < EDGE:
        return source.choice([low, low + 1, low if high is None else high])
    return source.choice(HUGE) if high is None else source.randint(low, high)


def _number(source: random.Random, schema: Schema, now: object) -> float:
    low, high = _bounds(schema)
    open_low = "exclusiveMinimum" in schema or "gt" in schema
    open_high = "exclusiveMaximum" in schema or "lt" in schema
    least = (low or 0.0) + (1e-9 if open_low else 0.0)
    most = 1e9 if high is None else high - (1e-9 if open_high else 0.0)
    start = float(now) if isinstance(now, (int, float)) and now else (0.5 if high is None else high / 2)
    kind = source.random()
    if kind < NEAR:
        return _clip(float(f"{start * exp(source.uniform(-log(4), log(4))):.3g}"), least, most)
    return source.choice([least, most]) if kind < EDGE else source.uniform(least, min(most, 100.0))


def _clip(value: Number, low: Number, high: Number | None) -> Number:
    return max(low, value if high is None else min(value, high))
