"""Train a teacher: an image classifier on the source domain, from image labels alone."""

from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pipeline.config import Params
from pipeline.devices import make_fabric
from pipeline.domains import PreparedDomain
from pipeline.manifest import Split
from pipeline.model_files import ModelInfo, save_model
from pipeline.scored_set import validation_images
from pipeline.teacher import start_teacher
from pipeline.training import StepLosses, fit
from pipeline.training_set import TrainingBatch, TrainingSet


def train_teacher(source: PreparedDomain, *, params: Params, output: Path) -> None:
    """Train a teacher on a domain and write its folder.

    Raises:
        PixelCAMError: the encoder or an image is unfit, or training diverges.
    """
    section = params.train_teacher
    fabric = make_fabric()
    teacher = start_teacher(params, classes=len(source.classes))
    result = fit(
        teacher,
        teacher_objective,
        training_set=TrainingSet(
            source.manifest.of_split(Split.TRAIN),
            input_size=params.model.input_size,
            augmentation=params.augmentation,
            seed=params.seed,
        ),
        validation=validation_images(source.manifest, params.model.input_size, section.batch_size),
        params=section,
        seed=params.seed,
        fabric=fabric,
        label="teacher",
    )
    info = ModelInfo(source.classes, source.name, teacher.encoder.spec)
    save_model(output, result, info=info, params=section, seed=params.seed, parents={})


def teacher_objective(model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:  # noqa: ARG001
    """Score the image classifier alone, by cross-entropy."""
    logits = model(batch.images).image_logits.float()
    loss = cross_entropy(logits, batch.class_idx)
    return StepLosses(loss, {"image_loss": loss}, logits)
