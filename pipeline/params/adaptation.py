"""How models are brought to a domain without its labels: the sections of `adaptation`, one a domain."""

from typing import Annotated

from pydantic import Field

from pipeline.params.types import NO_BOOL, Flag, ModelFolder, OpenFraction, PositiveFloat, PositiveInt, Section
from pipeline.params.vocabulary import AdaptationMethod, AdaptedTo, BatchNormStatistics, Evidence

Weight = Annotated[float, NO_BOOL, Field(ge=0)]


class AdaptationParams(Section):
    """How both models are adapted to a domain; docs/adaptation.md says which value is of which method.

    Attributes:
        model: the folder of what is adapted beside the teacher: the model of the last round.
        images: which of the domain's images are looked at, without label and mask.
        statistics: what batch norm normalizes by while a model learns.
        evidence: what speaks for an image's class where a method labels images.
        colours: whether views of images change their colours, and are blurred, as those of a training are.
        confident_share: of self-training: the share of images that are given a label, the surest of each class.
        forget_share: of SFDA-DeP: the share of images, the least sure of the over-predicted class, that unlearn it.
        steps: batches; methods that take no steps ignore them, and all that follows.
        label_weight: of the cross-entropy with labels by class centres in SHOT.
        pixel_loss_weight: of PixelCAM's pixel loss, on labels cut from its own maps before it was adapted; 0: none.
    """

    model: ModelFolder
    method: AdaptationMethod
    images: AdaptedTo
    statistics: BatchNormStatistics
    evidence: Evidence
    colours: Flag
    confident_share: OpenFraction
    forget_share: OpenFraction
    steps: PositiveInt
    batch_size: Annotated[PositiveInt, Field(ge=2)]
    learning_rate: PositiveFloat
    head_learning_rate: PositiveFloat
    label_weight: Weight
    pixel_loss_weight: Weight
