"""Bring a trained model to a domain's images without their labels, and write it as a model of its own."""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from pipeline.adaptation.class_prior import estimate_prior
from pipeline.adaptation.learning import Adapted, Task, learn
from pipeline.adaptation.reading import read_images
from pipeline.adaptation.target_statistics import with_target_statistics
from pipeline.adaptation.watching import Watched, describe_course, describe_stop, fell, watch
from pipeline.data.scored_set import ScoredSet
from pipeline.data.unlabelled import UnlabelledDomain
from pipeline.models.files import ModelInfo, State, weights_sha256
from pipeline.models.loading import load_net
from pipeline.models.pixelcam import PixelCAM
from pipeline.models.teacher import Teacher
from pipeline.params.adaptation import AdaptationParams
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptationMethod, BatchNormStatistics, Evidence, UnsupervisedScore
from pipeline.runtime.collectives import from_first, wait_for_all
from pipeline.runtime.console import say
from pipeline.runtime.devices import describe_device, make_fabric, to_device
from pipeline.runtime.files import replacing_folder
from pipeline.runtime.processes import is_first
from pipeline.training.checkpoints import Checkpoint, Kept
from pipeline.training.loop import TrainingResult
from pipeline.training.saving import save_model

AT_ONCE = (AdaptationMethod.BATCH_NORM, AdaptationMethod.LABEL_SHIFT)  # no steps: measured, and done


def adapt_models(
    models: Mapping[str, Path],
    target: UnlabelledDomain,
    *,
    adaptation: AdaptationParams,
    params: Params,
    output: Path,
    checkpoints: Path,
) -> None:
    """Adapt models to a domain and write each into a folder of its own.

    Args:
        models: their folders, by the name of the folder that each is written to.
        target: the images, which know no label.
        adaptation: how.
        params: all parameters.
        output: folder to write; is replaced as a whole.
        checkpoints: folder for the state of what is under way; it stays until all is on disk.

    Raises:
        PixelCAMError: a model is damaged or unfit for the method, or there are too few images.
    """
    states = checkpoints / f"adapted_{target.name}"
    make_fabric()  # where several processes meet
    with ExitStack() as first_alone:
        folder = from_first(lambda: first_alone.enter_context(replacing_folder(output)))
        for name, model in models.items():
            adapt_model(
                model, target, adaptation=adaptation, params=params, output=folder / name, checkpoints=states / name
            )
    if is_first():
        shutil.rmtree(states, ignore_errors=True)
    wait_for_all()


def adapt_model(
    model: Path,
    target: UnlabelledDomain,
    *,
    adaptation: AdaptationParams,
    params: Params,
    output: Path,
    checkpoints: Path,
) -> None:
    """Adapt one model to a domain and write its folder; its state stays in `checkpoints`.

    Arguments as `adapt_models`.
    """
    net, info = load_net(model, params.evaluate_ood.weights[0])
    _check(target, net, info, adaptation)
    fabric = make_fabric()
    task = Task(
        model=net.to(fabric.device),
        info=info,
        made_by=weights_sha256(model, params.evaluate_ood.weights[0]),
        target=target,
        images=_as_taken(target, info, adaptation),
        adaptation=adaptation,
        params=params,
        fabric=fabric,
        states=checkpoints,
    )
    first = watch(task.reading.probabilities, epoch=0)
    adapted = (
        _at_once(task, first) if adaptation.method in AT_ONCE else learn(_prepared(task), first, source=task.model)
    )
    if is_first():
        _report(adapted, task, name=output.name)
        save_model(
            output,
            _result(adapted, device=describe_device(fabric)),
            info=adapted.info,
            params=adaptation,
            seed=params.seed,
            parents={"model": task.made_by},
            adaptation=_describe(adapted, task),
        )
    wait_for_all()


def _check(target: UnlabelledDomain, net: Teacher | PixelCAM, info: ModelInfo, adaptation: AdaptationParams) -> None:
    images, classes = len(target.images), len(info.classes)
    if len(target.classes) != classes:
        raise PixelCAMError(
            f"domain '{target.name}' has {len(target.classes)} classes and the model {classes}: classes are matched by "
            "their position, so list as many"
        )
    if images < 2 * classes:
        raise PixelCAMError(
            f"domain '{target.name}' has {images} image(s) to adapt to, and {2 * classes} are the least that tell "
            f"{classes} classes apart without labels; give more (a domain: by its adapt_fraction or images.train)"
        )
    by_pixels = adaptation.method is AdaptationMethod.SELF_TRAINING and adaptation.evidence is Evidence.PIXELS
    if by_pixels and isinstance(net, PixelCAM) and target.background_class_idx is None:
        raise PixelCAMError(
            f"adaptation.evidence: 'pixels' tells images with foreground from those without, and domain "
            f"'{target.name}' has no background_class; give it one (pixelcam adapt: --background-class), or set it to "
            "image_head"
        )


def _as_taken(target: UnlabelledDomain, info: ModelInfo, adaptation: AdaptationParams) -> ScoredSet:
    """Return a domain's images as a model takes them, each decoded once."""
    return ScoredSet(
        target.images.labelled([0] * len(target.images), classes=target.classes),
        image_size=info.encoder.input_size,
        mask_size=1,
        batch_size=adaptation.batch_size,
        background_class_idx=None,
        repeated=True,
    )


def _measured(task: Task) -> Task:
    """Return a task whose model has batch norm measured on the domain."""
    mixed = task.images.in_random_order(task.params.seed)
    images = (to_device(batch.images, task.fabric.device) for batch in mixed)
    asked_by = f"adaptation.{task.target.name}"
    model = with_target_statistics(task.model, images, task.fabric.device, asked_by=asked_by)
    return replace(task, model=model)


def _prepared(task: Task) -> Task:
    """Return a task as its method begins to learn."""
    return _measured(task) if task.adaptation.statistics is BatchNormStatistics.TARGET else task


def _at_once(task: Task, first: Watched) -> Adapted:
    """Adapt without steps; where the model falls onto one class, it stays as it was."""
    source, info = _copy_of(task.model), task.info
    if task.adaptation.method is AdaptationMethod.BATCH_NORM:
        task = _measured(task)
    else:
        prior = _source_prior(info)
        found = estimate_prior(task.reading.probabilities, prior)
        task = replace(task, model=deepcopy(task.model))
        task.model.image_head.shift_logits(torch.log(found / prior))
        info = replace(info, class_shares=tuple(found.tolist()))
    course = [first, watch(read_images(task.model, task.images, task.fabric).probabilities, epoch=1)]
    return Adapted(
        kept=Kept(0, source) if fell(course) else Kept(1, _copy_of(task.model)),
        course=course,
        rows=[{"epoch": each.epoch, "step": 0, **each.row()} for each in course],
        info=task.info if fell(course) else info,
        checkpoint=Checkpoint(task.states, "none"),
    )


def _copy_of(model: nn.Module) -> State:
    """Return a model's weights, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _source_prior(info: ModelInfo) -> torch.Tensor:
    """Return how often each class was seen by a model as it learned, float64 (K,); alike where it does not say."""
    classes = len(info.classes)
    shares = info.class_shares or (1 / classes,) * classes
    if info.class_shares is None:
        say("label_shift: the model does not say how often it saw each class; as often as every other is presumed")
    return torch.tensor(shares, dtype=torch.float64)


def _report(adapted: Adapted, task: Task, *, name: str) -> None:
    stopped = describe_stop(adapted.course, task.target.classes)
    if stopped is not None:
        say(f"{name}, adapting to {task.target.name}: stopped, {stopped}; epoch {adapted.kept.epoch} is kept")


def _result(adapted: Adapted, *, device: str) -> TrainingResult:
    chosen = UnsupervisedScore.MUTUAL_INFORMATION
    return TrainingResult({chosen: adapted.kept}, chosen, pd.DataFrame(adapted.rows), device, adapted.checkpoint)


def _describe(adapted: Adapted, task: Task) -> dict[str, Any]:
    """Return how a model was adapted, as JSON values."""
    own = task.adaptation
    at_once = own.method in AT_ONCE
    return {
        "domain": task.target.name,
        "method": own.method.value,
        "images": len(task.target.images),
        "adapted_to": own.images.value,
        "evidence": (Evidence.PIXELS if adapted.by_pixels else Evidence.IMAGE_HEAD).value,
        "statistics": own.statistics.value,
        "chosen_by": "none" if at_once else UnsupervisedScore.MUTUAL_INFORMATION.value,
        "chosen_epoch": adapted.kept.epoch,
        "stopped": describe_stop(adapted.course, task.target.classes),
        "start_collapsed": adapted.course[0].has_collapsed,
        "course": describe_course(adapted.course, task.target.classes),
    }
