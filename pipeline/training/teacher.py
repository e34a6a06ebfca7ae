"""Train a teacher: an image classifier on the source domain, from image labels alone, and what it must do without."""

import math
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipeline.cams.request import normalize_cam
from pipeline.data.manifest import PreparedDomain, Split
from pipeline.data.maps import Localization
from pipeline.data.scored_set import validation_images
from pipeline.data.training_set import TrainingBatch, TrainingSet
from pipeline.models.files import ModelInfo
from pipeline.models.teacher import Teacher, TeacherOutput, start_teacher
from pipeline.params.config import Params
from pipeline.params.vocabulary import Regularization, Selection
from pipeline.runtime.collectives import gather_rows, joint_mean, own_share, rand_rows, wait_for_all
from pipeline.runtime.devices import make_fabric
from pipeline.runtime.processes import count, is_first
from pipeline.training.loop import StepLosses, fit, wanted_selections
from pipeline.training.saving import class_shares, save_model

HAS_CELLS: Final = (16, 32, 44, 56)  # pixels of a cell's side, in images of HAS_IMAGE_SIZE; one batch of five has none
HAS_IMAGE_SIZE: Final = 224
HAS_HIDDEN: Final = 0.5  # probability that a cell is hidden
ADL_DROP_RATE: Final = 0.75  # probability of the drop mask, else the importance map
ADL_THRESHOLD: Final = 0.9  # gamma, as a share of the attention's maximum


class CutMixed(NamedTuple):
    """Images that each hold a box of another.

    Attributes:
        images: float (B, 3, H, W).
        partner: int64 (B,), which image of the batch, of all processes' shares, the box comes from.
        share: of the area that is still the image's own, float scalar in [0, 1].
    """

    images: Tensor
    partner: Tensor
    share: Tensor


def hide_cells(images: Tensor, generator: torch.Generator) -> Tensor:
    """Hide random cells of each square image, float (B, 3, S, S), behind the mean colour of the batch.

    The size of the cells is drawn for the batch, in proportion to that of the images. The mean is the batch's instead
    of the training set's. Source: Hide-and-Seek (mixed patch sizes), Kumar Singh and Lee, ICCV 2017.
    """
    choice = torch.randint(len(HAS_CELLS) + 1, (1,), generator=generator, device=generator.device)
    nothing = torch.zeros_like(images[:, :1], dtype=torch.bool)
    # One mask for each size, since to read the choice a GPU would have to be waited for.
    masks = [nothing, *(cells_mask(images, side=side, generator=generator) for side in _sides(images.shape[3]))]
    hidden = torch.stack(masks).index_select(0, choice).squeeze(0)
    return torch.where(hidden, joint_mean(images.mean(dim=(0, 2, 3), keepdim=True)), images)


def _sides(size: int) -> list[int]:
    """Return how many pixels the sides of cells have in images of so many."""
    return [max(1, round(cell * size / HAS_IMAGE_SIZE)) for cell in HAS_CELLS]


def cells_mask(images: Tensor, *, side: int, generator: torch.Generator) -> Tensor:
    """Draw with probability 1/2 each cell of `side` x `side` pixels, those at the right and lower border cut.

    Returns:
        bool (B, 1, H, W) for images (B, 3, H, W), True in the cells that were drawn.
    """
    height, width = images.shape[-2:]
    grid = (len(images), math.ceil(height / side), math.ceil(width / side))
    drawn = rand_rows(*grid, generator=generator) < HAS_HIDDEN
    return drawn.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)[:, None, :height, :width]


def paste_boxes(images: Tensor, generator: torch.Generator) -> CutMixed:
    """Paste into each image, float (B, 3, H, W), a box of another image of the batch, at the same place for all.

    The box has 1 - lambda of the area, lambda ~ Beta(1, 1), and its centre lies anywhere, so that the border may cut
    it; `share` is what is truly left. Source: CutMix, Yun et al., ICCV 2019.
    """
    device = generator.device
    partner = own_share(torch.randperm(count() * len(images), generator=generator, device=device))
    # Beta(1, 1) is the uniform distribution.
    kept, centre_y, centre_x = torch.rand(3, generator=generator, device=device).double()
    side = (1 - kept).sqrt()
    rows, columns = (
        _span(centre, side, size) for centre, size in zip((centre_y, centre_x), images.shape[2:], strict=True)
    )
    inside = rows[:, None] & columns
    mixed = torch.where(inside, gather_rows(images)[partner], images)
    return CutMixed(mixed, partner, 1 - inside.float().mean())


def _span(centre: Tensor, side: Tensor, size: int) -> Tensor:
    """Return which of `size` pixels an interval of length `side` around `centre` holds: bool (size,) of [0, 1]."""
    half, middle = (side * size).long() // 2, (centre * size).long()
    pixels = torch.arange(size, device=centre.device)
    return (middle - half <= pixels) & (pixels < middle + half)


def drop_or_weigh(features: Tensor, generator: torch.Generator) -> Tensor:
    """Either zero the cells with the highest attention or weigh all cells by it, features (B, C, h, w) alike in shape.

    The attention is the mean over channels. Drawn for the batch. Source: attention-based dropout layer (ADL), Choe and
    Shim, CVPR 2019.
    """
    attention = features.float().mean(dim=1, keepdim=True)
    kept = attention <= ADL_THRESHOLD * attention.amax(dim=(2, 3), keepdim=True)
    drop = torch.rand((), generator=generator, device=generator.device) < ADL_DROP_RATE
    return features * torch.where(drop, kept.float(), attention.sigmoid()).to(features.dtype)


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
    info = ModelInfo(
        source.classes,
        source.name,
        teacher.encoder.spec,
        teacher.image_head.name,
        pixel_head=None,
        pixel_classes=None,
        class_shares=class_shares(source),
    )
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
