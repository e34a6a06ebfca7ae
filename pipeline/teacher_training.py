"""Train a teacher: an image classifier on the source domain, from image labels alone."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.cam_request import normalize_cam
from pipeline.choices import Regularization, Selection
from pipeline.collectives import gather_rows, wait_for_all
from pipeline.config import Params
from pipeline.devices import make_fabric
from pipeline.domains import PreparedDomain
from pipeline.localization import Localization
from pipeline.manifest import Split
from pipeline.model_files import ModelInfo, save_model
from pipeline.processes import is_first
from pipeline.regularization import drop_or_weigh, hide_cells, paste_boxes
from pipeline.scored_set import validation_images
from pipeline.teacher import Teacher, TeacherOutput, start_teacher
from pipeline.training import StepLosses, fit, wanted_selections
from pipeline.training_set import TrainingBatch, TrainingSet


def train_teacher(
    source: PreparedDomain, *, params: Params, output: Path, checkpoints: Path, keep_checkpoint: bool = False
) -> None:
    """Train a teacher on a domain and write its folder; a training that was killed goes on from `checkpoints`.

    Args:
        source: the domain to learn from.
        params: all parameters.
        output: folder to write.
        checkpoints: folder for the state of trainings under way.
        keep_checkpoint: leave the last state there, where the output is not safe yet.

    Raises:
        PixelCAMError: the encoder or an image is unfit, or training diverges.
    """
    section = params.train_teacher
    fabric = make_fabric()
    teacher = start_teacher(params, classes=len(source.classes))
    result = fit(
        teacher,
        TeacherObjective(section.regularization),
        training_set=TrainingSet(
            source.manifest.of_split(Split.TRAIN),
            input_size=params.model.input_size,
            augmentation=params.augmentation,
            seed=params.seed,
        ),
        validation=validation_images(
            source,
            input_size=params.model.input_size,
            batch_size=section.batch_size,
            with_masks=Selection.VAL_PXAP in wanted_selections(section),
        ).share(),
        localizer=ClassMapLocalizer(teacher),
        params=section,
        seed=params.seed,
        fabric=fabric,
        checkpoints=checkpoints,
        label="teacher",
    )
    info = ModelInfo(source.classes, source.name, teacher.encoder.spec, teacher.image_head.name, pixel_head=None)
    if is_first():
        save_model(output, result, info=info, params=section, seed=params.seed, parents={})
        if not keep_checkpoint:
            result.checkpoint.remove()
    wait_for_all()


class ClassMapLocalizer:
    """A teacher while it trains as a localizer: its CAM read from the head, whatever method reads it later."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    @torch.inference_mode()
    def __call__(self, images: Tensor, class_idx: Tensor) -> Localization:
        """Return image logits and CAMs, float32 (B, h, w) in [0, 1]."""
        features = self.teacher.eval().encoder(images)
        class_maps = self.teacher.image_head.class_maps(features).float()
        maps = class_maps[torch.arange(len(class_idx)), class_idx]
        return Localization(self.teacher.image_head(features).float(), normalize_cam(maps))


class TeacherObjective:
    """Cross-entropy of the image labels + the image head's penalty, under a regularization."""

    def __init__(self, regularization: Regularization) -> None:
        self.regularization = regularization

    def __call__(self, model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
        """Score the image classifier; under CutMix the accuracy is that of the image pasted into."""
        images, mixed = batch.images, None
        match self.regularization:
            case Regularization.NONE:
                output: TeacherOutput = model(images)
            case Regularization.HAS:
                output = model(hide_cells(images, generator))
            case Regularization.CUTMIX:
                mixed = paste_boxes(images, generator)
                output = model(mixed.images)
            case Regularization.ADL:
                output = model(images, feature_filter=partial(drop_or_weigh, generator=generator))
        logits = output.image_logits.float()
        loss = cross_entropy(logits, batch.class_idx)
        if mixed is not None:
            pasted_loss = cross_entropy(logits, gather_rows(batch.class_idx)[mixed.partner])
            loss = mixed.share * loss + (1 - mixed.share) * pasted_loss
        return StepLosses(loss + output.penalty, {"image_loss": loss}, logits)
