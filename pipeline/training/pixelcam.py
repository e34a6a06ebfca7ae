"""Train PixelCAM: both tasks at once on the source domain, pixels from the teacher's pseudo-labels; or a baseline."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.data.manifest import PreparedDomain, Split
from pipeline.data.maps import resize_labels, resize_map
from pipeline.data.scored_set import validation_images
from pipeline.data.training_set import MaskLabels, PixelLabelSource, TrainingBatch, TrainingSet
from pipeline.models.files import ModelInfo, weights_sha256
from pipeline.models.loading import load_net
from pipeline.models.pixelcam import PixelCAM, PixelCAMLocalizer, PixelCAMOutput, build_pixelcam
from pipeline.models.teacher import start_teacher
from pipeline.params.config import Params, PixelCAMParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import (
    Approach,
    Drawing,
    Frozen,
    Initialization,
    LossResolution,
    PixelClasses,
    Selection,
    name_pixel_classes,
)
from pipeline.pseudo_labels.drawing import FixedSeeds, draw_pixels
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.runtime.collectives import wait_for_all
from pipeline.runtime.devices import make_fabric
from pipeline.runtime.processes import is_first
from pipeline.training.loop import StepLosses, fit, wanted_selections
from pipeline.training.losses import logits_at_pixels, partial_cross_entropy
from pipeline.training.saving import class_shares, save_model


def train_pixelcam(
    source: PreparedDomain,
    *,
    store: PseudoLabelStore,
    teacher: Path,
    params: Params,
    output: Path,
    checkpoints: Path,
    keep_checkpoint: bool = False,
) -> None:
    """Train PixelCAM, or the baseline that `approach` names, on a domain and write its folder.

    Args:
        source: the domain that the teacher and the pseudo-labels come from.
        store: the pseudo-labels.
        teacher: the folder of the model whose maps they are: a teacher, or PixelCAM of the round before.
        params: all parameters.
        output: folder to write.
        checkpoints: folder for the state of trainings under way.
        keep_checkpoint: leave the last state there, where the output is not safe yet.

    Raises:
        PixelCAMError: the pseudo-labels belong to another teacher or to other images, or training diverges.
    """
    section = _as_approached(params.train_pixelcam)
    check_store(store, teacher=teacher, source=source, pixel_classes=params.model.pixel_classes)
    fabric, model = make_fabric(), _initial_model(teacher, params, source)
    result = fit(
        model,
        PixelCAMObjective(section),
        training_set=TrainingSet(
            source.manifest.of_split(Split.TRAIN),
            input_size=params.model.input_size,
            augmentation=params.augmentation,
            seed=params.seed,
            store=_learned_from(store, source, params),
        ),
        validation=validation_images(
            source,
            input_size=params.model.input_size,
            batch_size=section.batch_size,
            with_masks=Selection.VAL_PXAP in wanted_selections(section),
        ).share(),
        localizer=PixelCAMLocalizer(model),
        params=section,
        seed=params.seed,
        fabric=fabric,
        checkpoints=checkpoints,
        label="PixelCAM",
    )
    if is_first():
        info, parents = _describe(model, source, params), {"teacher": weights_sha256(teacher)}
        save_model(output, result, info=info, params=section, seed=params.seed, parents=parents)
        if not keep_checkpoint:
            result.checkpoint.remove()
    wait_for_all()


def check_store(store: PseudoLabelStore, *, teacher: Path, source: PreparedDomain, pixel_classes: PixelClasses) -> None:
    """Raise a `PixelCAMError` unless a store is whole, and this teacher made it from the training images, as asked."""
    remedy = "run the extract_pseudo_labels stage again"
    if store.attributes.get("teacher_sha256") != weights_sha256(teacher):
        raise PixelCAMError(f"{store.path}: was made by another teacher than {teacher}; {remedy}")
    expected = [row.image for row in source.manifest.of_split(Split.TRAIN).rows]
    if list(store.image_ids) != expected:
        raise PixelCAMError(
            f"{store.path}: holds {len(store)} images that are not the {len(expected)} training images of "
            f"'{source.name}', in their order; {remedy}"
        )
    names = name_pixel_classes(pixel_classes, source.classes)
    if store.pixel_classes != names:
        raise PixelCAMError(
            f"{store.path}: model.pixel_classes '{pixel_classes}' needs labels of {', '.join(names)}, and these are of "
            f"{', '.join(store.pixel_classes)}; {remedy}"
        )
    if is_first():
        store.verify()


def _as_approached(params: PixelCAMParams) -> PixelCAMParams:
    """Return the params of a training, with the encoder frozen where the approach asks for that."""
    if params.approach in (Approach.TWO_STEP, Approach.NEGEV):
        return params.model_copy(update={"frozen": Frozen.ENCODER})
    return params


def _learned_from(store: PseudoLabelStore, source: PreparedDomain, params: Params) -> PixelLabelSource:
    """Return the labels that the steps draw from: all that there are, or the same few of each image all along."""
    labels: PixelLabelSource = store
    if params.train_pixelcam.approach is Approach.SUPERVISED:
        labels = MaskLabels(
            source.manifest.of_split(Split.TRAIN),
            size=params.model.input_size,
            background_class_idx=source.background_class_idx,
            pixel_classes=params.model.pixel_classes,
        )
    return labels if params.train_pixelcam.redraw else FixedSeeds(labels, params.train_pixelcam, params.seed)


def _initial_model(teacher: Path, params: Params, source: PreparedDomain) -> PixelCAM:
    """Return PixelCAM with encoder and image head from the model before it, or as the teacher itself began."""
    section = params.train_pixelcam
    match section.initialization:
        case Initialization.TEACHER:
            start, _ = load_net(teacher)
        case Initialization.ENCODER_WEIGHTS:
            start = start_teacher(params, classes=len(source.classes))
    pixel_classes = name_pixel_classes(params.model.pixel_classes, source.classes)
    model = build_pixelcam(
        start.encoder, start.image_head, params.pixel_head, seed=params.seed, pixel_classes=len(pixel_classes)
    )
    if section.approach in (Approach.TWO_STEP, Approach.NEGEV):
        model.image_head.requires_grad_(False)  # the encoder is frozen by the training itself
    return model


def _describe(model: PixelCAM, source: PreparedDomain, params: Params) -> ModelInfo:
    return ModelInfo(
        source.classes,
        source.name,
        model.encoder.spec,
        model.image_head.name,
        pixel_head=model.pixel_head.name,
        pixel_classes=params.model.pixel_classes,
        class_shares=class_shares(source),
    )


class PixelCAMObjective:
    """Image cross-entropy + pixel_loss_weight * partial cross-entropy at pixels drawn in each step.

    Source: the joint loss of Sec. 3 of arXiv 2503.24135.
    """

    def __init__(self, params: PixelCAMParams) -> None:
        self.params = params
        # Fixed seeds were drawn by their CAM once; to weigh them by it again would prefer the highest twice.
        self.drawing = params.foreground_drawing if params.redraw else Drawing.UNIFORM

    def __call__(self, model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
        """Score both heads on a batch that has pseudo-labels."""
        output: PixelCAMOutput = model(batch.images)
        logits = output.image_logits.float()
        image_loss = cross_entropy(logits, batch.class_idx)
        pixel_loss = self.pixel_loss(output.pixel_logits.float(), batch, generator)
        total = image_loss + self.params.pixel_loss_weight * pixel_loss + output.penalty
        return StepLosses(total, {"image_loss": image_loss, "pixel_loss": pixel_loss}, logits)

    def pixel_loss(self, pixel_logits: Tensor, batch: TrainingBatch, generator: torch.Generator) -> Tensor:
        """Return the partial cross-entropy of pixel logits, float32 (B, P, h, w), at pixels that are drawn here."""
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
            foreground_drawing=self.drawing,
            generator=generator,
        )
        size = (labels.shape[1], labels.shape[2])
        return partial_cross_entropy(logits_at_pixels(pixel_logits, drawn.index, size=size), drawn.target)
