"""Train PixelCAM: both tasks at once on the source domain, pixels from the teacher's pseudo-labels."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.config import Initialization, LossResolution, Params, PixelCAMParams
from pipeline.devices import make_fabric
from pipeline.domains import PreparedDomain
from pipeline.errors import PixelCAMError
from pipeline.losses import logits_at_pixels, partial_cross_entropy
from pipeline.manifest import Split
from pipeline.model_files import ModelInfo, save_model, weights_sha256
from pipeline.pixelcam import PixelCAM, PixelCAMOutput, build_pixelcam
from pipeline.pseudo_labels import draw_pixels
from pipeline.resizing import resize_labels, resize_map
from pipeline.scored_set import validation_images
from pipeline.store import PseudoLabelStore
from pipeline.teacher import load_teacher, start_teacher
from pipeline.training import StepLosses, fit
from pipeline.training_set import TrainingBatch, TrainingSet


def train_pixelcam(
    source: PreparedDomain, *, store: PseudoLabelStore, teacher: Path, params: Params, output: Path
) -> None:
    """Train PixelCAM on a domain and write its folder.

    Args:
        source: the domain that the teacher and the pseudo-labels come from.
        store: the pseudo-labels.
        teacher: the teacher's folder.
        params: all parameters.
        output: folder to write.

    Raises:
        PixelCAMError: the pseudo-labels belong to another teacher or to other images, or training diverges.
    """
    section = params.train_pixelcam
    training_images = source.manifest.of_split(Split.TRAIN)
    check_store(store, teacher=teacher, source=source)
    store.verify()
    fabric = make_fabric()
    model = _initial_model(teacher, params, classes=len(source.classes))
    result = fit(
        model,
        PixelCAMObjective(section),
        training_set=TrainingSet(
            training_images,
            input_size=params.model.input_size,
            augmentation=params.augmentation,
            seed=params.seed,
            store=store,
        ),
        validation=validation_images(source.manifest, params.model.input_size, section.batch_size),
        params=section,
        seed=params.seed,
        fabric=fabric,
        label="PixelCAM",
    )
    info = ModelInfo(source.classes, source.name, model.encoder.spec)
    parents = {"teacher": weights_sha256(teacher)}
    save_model(output, result, info=info, params=section, seed=params.seed, parents=parents)


def check_store(store: PseudoLabelStore, *, teacher: Path, source: PreparedDomain) -> None:
    """Raise a `PixelCAMError` unless a store was made by this teacher from the source's training images."""
    remedy = "run the extract_pseudo_labels stage again"
    if store.attributes.get("teacher_sha256") != weights_sha256(teacher):
        raise PixelCAMError(f"{store.path}: was made by another teacher than {teacher}; {remedy}")
    expected = [row.image for row in source.manifest.of_split(Split.TRAIN).rows]
    if list(store.image_ids) != expected:
        raise PixelCAMError(
            f"{store.path}: holds {len(store)} images that are not the {len(expected)} training images of "
            f"'{source.name}', in their order; {remedy}"
        )


def _initial_model(teacher: Path, params: Params, *, classes: int) -> PixelCAM:
    """Return PixelCAM with encoder and image head from the teacher, or as the teacher itself began."""
    match params.train_pixelcam.initialization:
        case Initialization.TEACHER:
            start, _ = load_teacher(teacher)
        case Initialization.ENCODER_WEIGHTS:
            start = start_teacher(params, classes=classes)
    return build_pixelcam(start.encoder, start.image_head, seed=params.seed)


class PixelCAMObjective:
    """Image cross-entropy + pixel_loss_weight * partial cross-entropy at pixels drawn anew in each step.

    Source: the joint loss of Sec. 3 of arXiv 2503.24135.
    """

    def __init__(self, params: PixelCAMParams) -> None:
        self.params = params

    def __call__(self, model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
        """Score both heads on a batch that has pseudo-labels."""
        output: PixelCAMOutput = model(batch.images)
        logits = output.image_logits.float()
        image_loss = cross_entropy(logits, batch.class_idx)
        pixel_loss = self._pixel_loss(output.pixel_logits.float(), batch, generator)
        total = image_loss + self.params.pixel_loss_weight * pixel_loss
        return StepLosses(total, {"image_loss": image_loss, "pixel_loss": pixel_loss}, logits)

    def _pixel_loss(self, pixel_logits: Tensor, batch: TrainingBatch, generator: torch.Generator) -> Tensor:
        if batch.pseudo_labels is None or batch.cam is None:
            raise PixelCAMError("the joint training needs pseudo-labels; give its training set a pseudo-label store")
        labels, cam = batch.pseudo_labels, batch.cam
        if self.params.loss_resolution is LossResolution.FEATURE:
            grid = pixel_logits.shape[-2:]
            labels, cam = resize_labels(labels, grid), resize_map(cam, grid)
        drawn = draw_pixels(
            labels,
            cam,
            foreground_pixels=self.params.foreground_pixels,
            background_pixels=self.params.background_pixels,
            generator=generator,
        )
        size = (labels.shape[1], labels.shape[2])
        return partial_cross_entropy(logits_at_pixels(pixel_logits, drawn.index, size=size), drawn.target)
