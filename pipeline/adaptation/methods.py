"""The methods that learn by steps: what images are labelled by, what is descended, and which weights learn.

| method | labels, and when | loss of the image head | learns |
|---|---|---|---|
| tent | none | entropy | scales and shifts of norms in the encoder |
| shot | by class centres, every epoch | entropy - marginal entropy + label_weight * cross-entropy | encoder |
| self_training | the surest of each class, once | cross-entropy | encoder, image head |
| sfda_dep | predicted, or to be unlearned, every epoch | cross-entropy + unlearning | encoder, image head |

Beside the loss of the image head PixelCAM has its pixel loss, of weight `pixel_loss_weight`, for which its pixel head
learns as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.adaptation.labelling import class_evidence, labels_by_centres, surest_labels, unlearning_labels
from pipeline.adaptation.losses import labelled_cross_entropy, marginal_entropy, mean_entropy, unlearning_loss
from pipeline.adaptation.reading import Reading
from pipeline.data.training_set import TrainingBatch
from pipeline.models.pixelcam import PixelCAM, PixelCAMOutput
from pipeline.models.teacher import Teacher, TeacherOutput
from pipeline.params.adaptation import AdaptationParams
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptationMethod
from pipeline.training.loop import StepLosses
from pipeline.training.pixelcam import PixelCAMObjective

# And with them those that timm makes of them.
NORMS: Final = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What images are labelled by: the model on all of them, and what is known of the domain.

    Attributes:
        reading: the model as it is.
        foreground_share: float32 (N,), of the maps before the model was adapted; None where the image head speaks.
        background_class_idx: the class without foreground, if there is one.
    """

    reading: Reading
    foreground_share: Tensor | None
    background_class_idx: int | None


@dataclass(frozen=True)
class Method:
    """A method that learns by steps.

    Attributes:
        label: gives every image a label, int64 (N,), see `pipeline.adaptation.labelling`; None: labels play no part.
        every_epoch: whether images are labelled anew in each epoch, by the model as it has become.
        image_loss: of logits, float32 (B, K), and labels, int64 (B,).
        norms_only: only scales and shifts of the encoder's norms learn.
        image_head_learns: whether the image head does.
    """

    label: Callable[[Evidence, AdaptationParams], Tensor] | None
    every_epoch: bool
    image_loss: Callable[[Tensor, Tensor, AdaptationParams], Tensor]
    norms_only: bool
    image_head_learns: bool


def _tent(logits: Tensor, _labels: Tensor, _params: AdaptationParams) -> Tensor:
    return mean_entropy(logits)


def _shot(logits: Tensor, labels: Tensor, params: AdaptationParams) -> Tensor:
    information = mean_entropy(logits) - marginal_entropy(logits)
    return information + params.label_weight * labelled_cross_entropy(logits, labels)


def _self_training(logits: Tensor, labels: Tensor, _params: AdaptationParams) -> Tensor:
    return labelled_cross_entropy(logits, labels)


def _sfda_dep(logits: Tensor, labels: Tensor, _params: AdaptationParams) -> Tensor:
    return labelled_cross_entropy(logits, labels) + unlearning_loss(logits, labels)


def _by_centres(evidence: Evidence, _params: AdaptationParams) -> Tensor:
    return labels_by_centres(evidence.reading.features, evidence.reading.probabilities)


def _surest(evidence: Evidence, params: AdaptationParams) -> Tensor:
    found = class_evidence(evidence.reading.image_logits, evidence.foreground_share, evidence.background_class_idx)
    return surest_labels(found, share=params.confident_share)


def _unlearning(evidence: Evidence, params: AdaptationParams) -> Tensor:
    return unlearning_labels(evidence.reading.probabilities, share=params.forget_share)


METHODS: Final = {
    AdaptationMethod.TENT: Method(None, False, _tent, norms_only=True, image_head_learns=False),
    AdaptationMethod.SHOT: Method(_by_centres, True, _shot, norms_only=False, image_head_learns=False),
    AdaptationMethod.SELF_TRAINING: Method(_surest, False, _self_training, norms_only=False, image_head_learns=True),
    AdaptationMethod.SFDA_DEP: Method(_unlearning, True, _sfda_dep, norms_only=False, image_head_learns=True),
}


def choose_weights(model: Teacher | PixelCAM, method: Method, *, with_pixels: bool) -> None:
    """Let those weights learn that a method changes, and no others.

    Raises:
        PixelCAMError: the method changes norms alone, and the encoder has none.
    """
    model.requires_grad_(False)
    if method.norms_only:
        norms = [layer for layer in model.encoder.modules() if isinstance(layer, NORMS)]
        if not norms:
            raise PixelCAMError(
                "adaptation.method: 'tent' learns the scales and shifts of norms, and this encoder has no "
                "batch, layer, group or RMS norm; choose "
                "self_training or shot, or train an encoder that has norms, such as resnet50"
            )
        for layer in norms:
            layer.requires_grad_(True)
    else:
        model.encoder.requires_grad_(True)
    if method.image_head_learns:
        model.image_head.requires_grad_(True)
    if with_pixels and isinstance(model, PixelCAM):
        model.pixel_head.requires_grad_(True)


class AdaptationObjective:
    """A method's loss of the image head, + pixel_loss_weight * the joint training's pixel loss where there are labels.

    Args:
        method: what is descended.
        params: weights of the losses.
        pixels: the objective of the joint training, for its pixel loss.
    """

    def __init__(self, method: Method, params: AdaptationParams, pixels: PixelCAMObjective) -> None:
        self.method = method
        self.params = params
        self.pixels = pixels

    def __call__(self, model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> StepLosses:
        """Score a batch whose `class_idx` are labels that the model gave."""
        output: TeacherOutput | PixelCAMOutput = model(batch.images)
        loss = self.method.image_loss(output.image_logits.float(), batch.class_idx, self.params)
        parts = {"adaptation_loss": loss}
        total = loss + output.penalty
        if isinstance(output, PixelCAMOutput) and batch.pseudo_labels is not None:
            pixel_loss = self.pixels.pixel_loss(output.pixel_logits.float(), batch, generator)
            parts["pixel_loss"] = pixel_loss
            total = total + self.params.pixel_loss_weight * pixel_loss
        return StepLosses(total, parts, image_logits=None)
