"""How long a training step waits for its batch, on images like those of GlaS as BMP, from disk to the step."""

from collections.abc import Iterator
from itertools import chain, count
from statistics import median

from benchmarks.joint_step import make_step
from benchmarks.label_store import stored_images, write_zarr
from benchmarks.networks import default_params, make_teacher
from benchmarks.outcome import Outcome, Reach
from benchmarks.settings import Settings
from benchmarks.timing import seconds_of
from benchmarks.tissue_files import glas_like
from pipeline.data.training_set import TrainingBatch, TrainingSet
from pipeline.models.pixelcam import build_pixelcam
from pipeline.params.vocabulary import PixelHeadName
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.training.pixelcam import PixelCAMObjective


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield the share of waiting for each encoder, from the second step on."""
    params, size = default_params(), settings.input_size
    images = make_training_set(settings, count=4 if settings.quick else 64)
    for name, batch_size in settings.encoders.items():
        teacher = make_teacher(name, input_size=size)
        pixelcam = build_pixelcam(teacher.encoder, teacher.image_head, PixelHeadName.LINEAR, seed=0)
        section = params.train_pixelcam
        step = make_step(pixelcam, PixelCAMObjective(section), section, settings.fabric)
        stream = chain.from_iterable(
            images.batches(epoch, batch_size, device=settings.fabric.device) for epoch in count()
        )
        waits, steps = [], []
        for _ in range(1 + settings.rounds(9)):
            taken: list[TrainingBatch] = []
            waits.append(seconds_of(lambda: taken.append(next(stream)), settings.fabric.device))  # noqa: B023 - called at once
            steps.append(seconds_of(lambda: step(taken[0]), settings.fabric.device))  # noqa: B023 - called at once
        yield Outcome(
            row="waiting_for_data",
            case=f"{name}, batch {batch_size}",
            work="waiting for a batch",
            against="the step",
            figure=sum(waits[1:]) / sum(steps[1:]),
            unit="of the step",
            reach=Reach.AT_MOST,
            target=0.05,
            details={"work_seconds": median(waits[1:]), "against_seconds": median(steps[1:])},
        )


def make_training_set(settings: Settings, *, count: int) -> TrainingSet:
    """Return images of GlaS's size and kind, with a store of pseudo-labels."""
    manifest = glas_like(settings.scratch, settings.glas, count=count)
    names, store = [row.image for row in manifest.rows], settings.scratch / "tissue.zarr"
    write_zarr(store, stored_images(len(names), settings.input_size), names)
    return TrainingSet(
        manifest,
        input_size=settings.input_size,
        augmentation=default_params().augmentation,
        seed=0,
        store=PseudoLabelStore(store),
    )
