"""An epoch of adapting, steps and the reading of all images after them, against an epoch of the joint training."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Final

import torch
from torch import nn

from benchmarks.joint_step import labelled_batch, make_step
from benchmarks.networks import default_params, make_teacher
from benchmarks.outcome import Outcome, cost
from benchmarks.settings import Settings
from benchmarks.timing import side_by_side
from pipeline.adaptation.methods import METHODS, AdaptationObjective, choose_weights
from pipeline.adaptation.target_statistics import measured_norms, with_target_statistics
from pipeline.data.training_set import TrainingBatch
from pipeline.models.pixelcam import PixelCAM, build_pixelcam
from pipeline.params.vocabulary import AdaptationMethod, Frozen, PixelHeadName
from pipeline.training.pixelcam import PixelCAMObjective

BATCHES: Final = 3  # in an epoch
Work = Callable[[], object]


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield the cost of each method for each encoder."""
    params = default_params()
    section, adaptation = params.train_pixelcam, next(iter(params.adaptation.values()))
    for name, batch_size in settings.encoders.items():
        teacher = make_teacher(name, input_size=settings.input_size)
        pixelcam = build_pixelcam(teacher.encoder, teacher.image_head, PixelHeadName.LINEAR, seed=0)
        batch = labelled_batch(batch_size, settings.input_size)
        joint = make_step(deepcopy(pixelcam), PixelCAMObjective(section), section, settings.fabric)
        works: dict[str, Work] = {}
        for method in METHODS:
            model = _ready(pixelcam, method)
            objective = AdaptationObjective(METHODS[method], adaptation, PixelCAMObjective(section))
            step = make_step(model, objective, section, settings.fabric)
            works[f"an epoch of {method}"] = partial(_adapting_epoch, partial(step, batch), model, batch)
        if measured_norms(pixelcam):
            works["batch_norm"] = partial(_measure_norms, pixelcam, batch, settings.fabric.device)
        for work, call in works.items():
            times = side_by_side(
                call,
                partial(_epoch, partial(joint, batch)),
                rounds=settings.rounds(3),
                device=settings.fabric.device,
            )
            against = "an epoch of the joint training"
            yield cost("adaptation", f"{name}, batch {batch_size}", work, against, times=times, target=None)


def _ready(pixelcam: PixelCAM, method: AdaptationMethod) -> PixelCAM:
    """Return a copy whose weights learn as a method says."""
    model = deepcopy(pixelcam)
    model.encoder.freeze(Frozen.BATCH_NORM if measured_norms(model) else Frozen.NOTHING)
    choose_weights(model, METHODS[method], with_pixels=True)
    return model


def _epoch(step: Work) -> None:
    for _ in range(BATCHES):
        step()


def _adapting_epoch(step: Work, model: nn.Module, batch: TrainingBatch) -> None:
    _epoch(step)
    with torch.no_grad():
        model.eval()
        for _ in range(BATCHES):
            model(batch.images.to(next(model.parameters()).device))


def _measure_norms(model: PixelCAM, batch: TrainingBatch, device: torch.device) -> None:
    with_target_statistics(model, [batch.images] * BATCHES, device, asked_by="benchmark")
