"""Evaluate a domain of many small images with two models that cost nothing, and print time and peak memory as JSON."""

import json
import resource
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import torch
from torch import Tensor

from benchmarks.networks import smooth_maps
from pipeline.data.maps import EvaluationBatch, Localization
from pipeline.evaluation.domain_scores import Resampling
from pipeline.evaluation.localizers import EvaluationDomain, evaluate_domain
from pipeline.evaluation.tables import per_image_tables
from pipeline.metrics.scores import Fitted, ModelName, Threshold, ThresholdSource
from pipeline.runtime.devices import keep_freed_memory
from pipeline.runtime.files import write_csv

BATCH: Final = 50
MAP_SIZE: Final = 32  # small, as the time that is of interest is not that of pixels
DIFFERENT: Final = 20  # batches that differ; after them they come again


class ReadColour:
    """A model whose map is one colour of the image, and whose logits are another's mean."""

    def __init__(self, channel: int) -> None:
        self.channel = channel

    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        """Return map and logits; the class does not matter."""
        del class_idx
        score = images[:, 2].mean(dim=(1, 2)) - 0.5
        return Localization(torch.stack([-score, score], dim=1), images[:, self.channel])


def batches(images: int) -> Iterator[EvaluationBatch]:
    """Yield so many images; of twenty, one has a region of interest: where the first colour is strong."""
    drawn = [smooth_maps(BATCH, MAP_SIZE, channels=3, seed=seed) for seed in range(min(DIFFERENT, -(-images // BATCH)))]
    for first in range(0, images, BATCH):
        pixels = drawn[first // BATCH % len(drawn)][: images - first]
        yield EvaluationBatch(
            image_ids=tuple(
                f"slide_{first + number:09}/patch_{first + number:09}.png" for number in range(len(pixels))
            ),
            images=pixels,
            class_idx=torch.arange(len(pixels)) % 2,
            masks=(pixels[:, 0] > 0.6) & (torch.arange(len(pixels)) % 20 == 0)[:, None, None],
            has_mask=torch.ones(len(pixels), dtype=torch.bool),
        )


def main() -> None:
    """Evaluate, with one thread, as the images are tiny."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    fitted = Fitted(Threshold(0.5, ThresholdSource.FIXED), 1.0)
    start = perf_counter()
    evaluations = evaluate_domain(
        {ModelName.TEACHER: ReadColour(0), ModelName.PIXELCAM: ReadColour(1)},
        EvaluationDomain(name="many", classes=("benign", "malignant"), batches=batches(arguments.images)),
        fitted=dict.fromkeys(ModelName, fitted),
        map_size=MAP_SIZE,
        resampling=Resampling(10 if arguments.quick else 1000, 0),
        device=torch.device("cpu"),
    )
    with TemporaryDirectory() as folder:
        write_csv(Path(folder) / "per_image.csv", per_image_tables(evaluations))
    seconds = perf_counter() - start
    print(
        json.dumps(
            {"images": arguments.images, "seconds_per_image": seconds / arguments.images, "peak_bytes": peak_bytes()}
        )
    )


def peak_bytes() -> int:
    """Return the most memory that this program has held; `getrusage` would count what its parent held when it began."""
    status = Path("/proc/self/status")
    if not status.exists():  # no Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
