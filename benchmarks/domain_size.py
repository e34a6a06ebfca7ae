"""An evaluation domain of more and more images: the time and the memory that each of them takes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

from benchmarks.outcome import Outcome, Reach
from benchmarks.settings import Settings

SIZES: Final = (1_000, 10_000, 100_000)
QUICK_SIZES: Final = (4, 12)


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield how time and memory per image compare with those of the smallest domain, each in a process of its own."""
    sizes = QUICK_SIZES if settings.quick else SIZES
    first, *others = [evaluate(size, settings) for size in sizes]
    for size, found in zip(sizes[1:], others, strict=True):
        case = f"{size} images against {sizes[0]}"
        yield Outcome(
            row="domain_size",
            case=case,
            work="seconds per image",
            against=f"{sizes[0]} images",
            figure=found["seconds_per_image"] / first["seconds_per_image"],
            unit="times as long",
            reach=Reach.AT_MOST,
            target=1.1,
            details={"work": found, "against": first},
        )
        yield Outcome(
            row="domain_size",
            case=case,
            work="peak memory",
            against=f"{sizes[0]} images",
            figure=found["peak_bytes"] / first["peak_bytes"],
            unit="times as much",
            reach=Reach.AT_MOST,
            target=1.1,
            details={"bytes_per_image": (found["peak_bytes"] - first["peak_bytes"]) / (size - sizes[0])},
        )


def evaluate(images: int, settings: Settings) -> dict[str, Any]:
    """Evaluate so many images in a process of its own, whose peak of memory is its own too."""
    command = [sys.executable, "-m", "benchmarks.evaluate_many", str(images), *(["--quick"] if settings.quick else [])]
    printed = subprocess.run(command, cwd=settings.project, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found
