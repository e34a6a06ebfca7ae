"""A joint training step against the same step without pixel head and pseudo-labels: what the second task costs.

The target is for the paper's linear head; the others are measured beside it.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from benchmarks.networks import default_params, make_teacher, smooth_maps, some_images
from benchmarks.outcome import Outcome, cost
from benchmarks.settings import Settings
from benchmarks.timing import side_by_side
from pipeline.data.training_set import TrainingBatch
from pipeline.models.pixelcam import build_pixelcam
from pipeline.params.config import TrainingParams
from pipeline.params.vocabulary import PixelHeadName, Regularization
from pipeline.pseudo_labels.thresholding import make_pseudo_labels
from pipeline.runtime.seeding import make_generator
from pipeline.training.loop import Objective
from pipeline.training.optimizers import make_optimizer
from pipeline.training.pixelcam import PixelCAMObjective
from pipeline.training.teacher import TeacherObjective


def measure(settings: Settings) -> Iterator[Outcome]:
    """Yield the cost for each encoder."""
    params = default_params()
    for name, batch_size in settings.encoders.items():
        teacher = make_teacher(name, input_size=settings.input_size)
        batch = labelled_batch(batch_size, settings.input_size)
        plain = TrainingBatch(batch.images, batch.class_idx)
        section, fabric = params.train_pixelcam, settings.fabric
        alone = make_step(deepcopy(teacher), TeacherObjective(Regularization.NONE), section, fabric)
        for head in PixelHeadName:
            pixelcam = build_pixelcam(deepcopy(teacher.encoder), deepcopy(teacher.image_head), head, seed=0)
            joint = make_step(pixelcam, PixelCAMObjective(section), section, fabric)
            times = side_by_side(
                partial(joint, batch), partial(alone, plain), rounds=settings.rounds(7), device=fabric.device
            )
            yield cost(
                "joint_step",
                f"{name}, batch {batch_size}",
                f"joint step, {head} head",
                "the same step without pixels",
                times=times,
                target=1.05 if head is PixelHeadName.LINEAR else None,
            )


def labelled_batch(count: int, size: int) -> TrainingBatch:
    """Return images with CAMs and the labels that the default params make of them."""
    cams = smooth_maps(count, size)[:, 0]
    labels = make_pseudo_labels(cams, default_params().extract_pseudo_labels)
    return TrainingBatch(some_images(count, size), torch.arange(count) % 2, labels, cams)


def make_step(
    model: nn.Module, objective: Objective, params: TrainingParams, fabric: Fabric
) -> Callable[[TrainingBatch], Tensor]:
    """Return what one training step does with a batch: forward, backward, along the gradients; it gives the loss."""
    wrapped, optimizer = fabric.setup(model, make_optimizer(model, params))
    generator = make_generator(0, "draw", device=fabric.device)

    def step(batch: TrainingBatch) -> Tensor:
        wrapped.train()
        losses = objective(wrapped, batch.to(fabric.device), generator)
        fabric.backward(losses.total)
        optimizer.step()
        optimizer.zero_grad()
        return losses.total.detach()

    return step
