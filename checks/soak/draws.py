"""What a run does, drawn from a seed and its number: params, how they are run, and what disturbs it."""

import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from checks.soak.values import draw_value, leaves

Values = dict[str, Any]
Recipe = Callable[[random.Random, Values], None]


class How(StrEnum):
    """How a run is started."""

    EXPERIMENT = "dvc exp run"
    REPRO = "dvc repro"
    TEMPORARY = "dvc exp run --temp"
    QUEUE = "dvc exp run --queue"


class Disturbance(StrEnum):
    """What happens to a run."""

    NONE = "none"
    KILL = "signal"
    FULL_DISK = "full disk"
    SMALL_FILES = "limit of a file's size"
    TWO_AT_ONCE = "two at once"


class Victim(StrEnum):
    """What a signal is sent to."""

    DVC = "dvc"
    GROUP = "dvc and its stage"
    STAGE = "stage"


@dataclass(frozen=True)
class Draw:
    """A run.

    Attributes:
        number: with the seed all that it is drawn from.
        values: the whole params.
        overrides: what `-S` has to say for them.
        how: the command.
        target: up to which stage; None: all of them.
        cold: whether programs start as a person starts them, or from a process that has imported everything.
        environment: settings of the machine.
        disturbance: what happens to it.
        victim, signal: of a signal.
        stages, seconds: it happens so long after so many stages have begun.
        room: bytes, of a full disk or for a file.
        compared: whether its outputs are compared with those of an undisturbed run elsewhere.
    """

    number: int
    values: Values
    overrides: tuple[str, ...]
    how: How
    target: str | None
    cold: bool
    environment: dict[str, str] = field(default_factory=dict)
    disturbance: Disturbance = Disturbance.NONE
    victim: Victim = Victim.DVC
    signal: str = "SIGKILL"
    stages: int = 0
    seconds: float = 0.0
    room: int = 0
    compared: bool = False


STRUCTURE: Final = 0.5  # share of runs whose models or domains are others than by default
HOW: Final = {How.EXPERIMENT: 70, How.REPRO: 18, How.TEMPORARY: 9, How.QUEUE: 3}
DISTURBED: Final = {
    Disturbance.NONE: 45,
    Disturbance.KILL: 30,
    Disturbance.FULL_DISK: 10,
    Disturbance.SMALL_FILES: 5,
    Disturbance.TWO_AT_ONCE: 10,
}


def draw_run(seed: int, number: int, base: Values) -> Draw:
    """Draw a run: the same seed and number give the same."""
    source = random.Random(f"{seed} {number}")
    values = draw_params(source, base)
    how = source.choices(list(HOW), list(HOW.values()))[0]
    disturbance = source.choices(list(DISTURBED), list(DISTURBED.values()))[0]
    if how is How.QUEUE:  # its workers are daemons of their own, and slow to start
        disturbance = Disturbance.NONE
    settings = {"PIXELCAM_PROCESSES": "2"} if source.random() < 0.03 else {}
    if source.random() < 0.05:
        settings["PIXELCAM_PRECISION"] = source.choice(["bf16-mixed", "32-true", "half"])
    if settings:  # they change bytes, and DVC, which does not know them, would take those for others'
        values["seed"] = number + 1000
    return Draw(
        number,
        values,
        tuple(overrides(base, values)),
        how,
        target=source.choices([None, "evaluate_ood", "train_pixelcam"], [25, 60, 15])[0],
        cold=source.random() < 0.04,
        environment=settings,
        disturbance=disturbance,
        victim=source.choice(list(Victim)),
        signal=source.choice(["SIGKILL", "SIGKILL", "SIGTERM", "SIGINT"]),
        stages=source.randint(0, 6),
        seconds=source.choice([0.0, source.uniform(0, 0.3), source.uniform(0, 2)]),
        room=int(10 ** source.uniform(2, 7)),
        compared=disturbance is not Disturbance.NONE and source.random() < 0.4,
    )


def draw_params(source: random.Random, base: Values) -> Values:
    """Draw params: some other structure or none, then one to six values of one to three sections."""
    values = deepcopy(base)
    if source.random() < STRUCTURE:
        for recipe in source.sample(RECIPES, source.randint(1, 2)):
            recipe(source, values)
    used = set(values["target_domains"])
    found = [leaf for leaf in leaves(values) if leaf.address[0] != "domains" or leaf.address[1] in used]
    sections = source.sample(sorted({leaf.address[0] for leaf in found} - NAMES), source.randint(1, 3))
    for leaf in source.choices([leaf for leaf in found if leaf.address[0] in sections], k=source.randint(1, 6)):
        inner = values
        for key in leaf.address[:-1]:
            inner = inner[key]
        inner[leaf.address[-1]] = draw_value(source, leaf)
    return values


NAMES: Final = {"source", "target_domains", "bounds"}  # drawn by recipes


def _three_classes(source: random.Random, values: Values) -> None:
    values["target_domains"] = ["colon", "colon_b"]
    for name in values["target_domains"]:
        values["domains"][name] |= {"classes": ["benign", "low", "high"]}
    values["model"]["pixel_classes"] = source.choice(["foreground", "image_classes"])
    _adapt_to(source, values)


def _image_classes(_: random.Random, values: Values) -> None:
    values["model"]["pixel_classes"] = "image_classes"


def _other_source(source: random.Random, values: Values) -> None:
    values["source"] = source.choice(["lymph_node", "table"])
    values["target_domains"] = [values["source"], *source.sample(["colon", "colon_b"], source.randint(0, 2))]
    _adapt_to(source, values)


def _other_targets(source: random.Random, values: Values) -> None:
    values["target_domains"] = [values["source"], *source.sample(["lymph_node", "colon_b", "table"], 2)]
    values["target_domains"] = list(dict.fromkeys(values["target_domains"]))
    _adapt_to(source, values)


def _slides(source: random.Random, values: Values) -> None:
    if source.random() < 0.5:
        values["source"] = "slides"
    values["target_domains"] = list(dict.fromkeys([values["source"], "slides"]))
    _adapt_to(source, values)


def _adapt_to(source: random.Random, values: Values) -> None:
    """Adapt to one of the other domains as to the present one, or to none."""
    like = next(iter(values["adaptation"].values()), None)
    others = [name for name in values["target_domains"] if name != values["source"]]
    values["adaptation"] = {source.choice(others): deepcopy(like)} if like and others and source.random() < 0.7 else {}
    for name, section in values["adaptation"].items():
        if values["domains"][name]["background_class"] is None:
            section["evidence"] = "image_head"


def _adapt_otherwise(source: random.Random, values: Values) -> None:
    methods = ["batch_norm", "tent", "shot", "label_shift", "self_training", "sfda_dep"]
    for section in values["adaptation"].values():
        section |= {"method": source.choice(methods), "images": source.choice(["train_and_val", "test"])}


def _rounds(source: random.Random, values: Values) -> None:
    values["rounds"] = {"round_2": "pixelcam"}
    if source.random() < 0.3:
        values["rounds"]["round_3"] = source.choice(["round_2", "pixelcam"])
    for section in values["adaptation"].values():
        section["model"] = list(values["rounds"])[-1] if source.random() < 0.9 else "pixelcam"


def _repeats(source: random.Random, values: Values) -> None:
    values["seeds"] = source.sample(range(1, 9), source.randint(1, 2))


def _bounds(_: random.Random, values: Values) -> None:
    values["bounds"] = [name for name in values["target_domains"] if name != values["source"]][:1]


def _head(source: random.Random, values: Values) -> None:
    values["model"]["image_head"] = source.choice(["sat", "tscam", "wildcat", "deepmil", "max", "lse"])
    values["cam"] |= {"method": source.choice(["cam", "gradcam", "scorecam", values["model"]["image_head"]])}
    if values["cam"]["method"] not in ("cam", "gradcam", "scorecam", "sat", "tscam"):
        values["cam"]["method"] = "smooth_gradcam++"


def _transformer(source: random.Random, values: Values) -> None:
    values["encoder"]["name"] = source.choice(["test_vit", "test_vit3", "test_vit_relpos", "no_such_model"])
    values["cam"]["method"] = source.choice(["rollout", "tscam", "eigencam", "hirescam"])
    values["model"]["image_head"] = "tscam" if values["cam"]["method"] == "tscam" else "gap"


def _all_rows(_: random.Random, values: Values) -> None:
    values["evaluate_ood"] |= {
        "weights": ["selected", "val_accuracy", "last", "val_loss", "val_pxap"],
        "test_time": ["none", "macenko", "reinhard", "batch_norm"],
    }


RECIPES: Final[tuple[Recipe, ...]] = (
    _three_classes,
    _image_classes,
    _other_source,
    _other_targets,
    _slides,
    _adapt_otherwise,
    _rounds,
    _repeats,
    _bounds,
    _head,
    _transformer,
    _all_rows,
)


def overrides(base: Mapping[str, Any], values: Mapping[str, Any], before: str = "") -> list[str]:
    """Return what `dvc exp run -S` has to say to make one file of params the other."""
    found = [f"~{before}{key}" for key in base if key not in values]
    for key, value in values.items():
        if key not in base:
            found.append(f"+{before}{key}={_written(value)}")
        elif isinstance(value, Mapping) and isinstance(base[key], Mapping):
            found += overrides(base[key], value, f"{before}{key}.")
        elif value != base[key] or type(value) is not type(base[key]):
            found.append(f"{before}{key}={_written(value)}")
    return found


def _written(value: object) -> str:
    """Return a value in Hydra's grammar."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case list() | tuple():
            return f"[{','.join(_written(item) for item in value)}]"
        case Mapping():
            return f"{{{','.join(f'{key}:{_written(item)}' for key, item in value.items())}}}"
    return f"'{value}'"
