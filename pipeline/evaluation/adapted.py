"""Models that were adapted to a domain, or trained on its own labels: which of them there are, and how they came about.

They lie in the folder of all models: `adapted_<domain>` of each domain in `adaptation`, `bound_<domain>` of each in
`bounds`, with a folder for each of the two models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from pipeline.metrics.scores import ModelName
from pipeline.models.files import ADAPTATION
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptationMethod, AdaptedTo, BatchNormStatistics, Evidence
from pipeline.runtime.files import first_line, is_shortage

SOURCE_ONLY: Final = "source_only"
SUPERVISED: Final = "supervised"
TRANSDUCTIVE: Final = ", transductive"  # follows the method's name


@dataclass(frozen=True, kw_only=True)
class AdaptationEpoch:
    """What a model's predictions on a domain's images looked like after an epoch, 0 being before the first step.

    `mutual_information` is in nats; `largest_share` is the share of the images that are predicted as `largest_class`.
    """

    epoch: int
    mutual_information: float
    largest_class: str
    largest_share: float


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How one model was adapted, as its `adaptation.json` says; no label of the domain had a part in it.

    Attributes:
        domain: to which.
        method: how.
        images: how many were looked at.
        adapted_to: which of the domain's images those were.
        evidence: what spoke for an image's class.
        statistics: what batch norm normalized by.
        chosen_by: the unsupervised score that chose the epoch, "none" of a method that takes no steps.
        chosen_epoch: whose weights were kept.
        stopped: when and why the run was stopped; None if it was not.
        start_collapsed: whether nearly all images were predicted as one class before the first step.
        course: every epoch, from 0 on.
    """

    domain: str
    method: AdaptationMethod
    images: int
    adapted_to: AdaptedTo
    evidence: Evidence
    statistics: BatchNormStatistics
    chosen_by: str
    chosen_epoch: int
    stopped: str | None
    start_collapsed: bool
    course: tuple[AdaptationEpoch, ...]

    @property
    def is_transductive(self) -> bool:
        """Return whether it was adapted to the very images that are scored."""
        return self.adapted_to is AdaptedTo.TEST


_RECORD: Final = TypeAdapter(Adaptation)


@dataclass(frozen=True, kw_only=True)
class AdaptedModels:
    """Both models as they know a domain: adapted to it, or trained on its own labels, of which there is no record.

    Attributes:
        domain: which.
        folder: holds a folder for each model, by its name.
        records: how each model was adapted; empty of those that were trained.
    """

    domain: str
    folder: Path
    records: Mapping[ModelName, Adaptation]

    @property
    def name(self) -> str:
        """Return how they came about, as in the column `adaptation` of the domain matrix."""
        if not self.records:
            return SUPERVISED
        record = self.records[ModelName.TEACHER]
        return f"{record.method}{TRANSDUCTIVE if record.is_transductive else ''}"


def find_adapted(params: Params, models: Path) -> tuple[AdaptedModels, ...]:
    """Return what the params ask to be adapted, in their order, and then the bounds.

    Args:
        params: all parameters.
        models: the folder of all models.

    Raises:
        PixelCAMError: an `adaptation.json` is missing, damaged or of another adaptation than the params ask for.
    """
    adapted: list[AdaptedModels] = []
    for domain in params.adaptation:
        folder = models / f"adapted_{domain}"
        records = {model: _read_asked_for(folder / model.value, params, domain) for model in ModelName}
        adapted.append(AdaptedModels(domain=domain, folder=folder, records=records))
    bounds = (AdaptedModels(domain=domain, folder=models / f"bound_{domain}", records={}) for domain in params.bounds)
    return (*adapted, *bounds)


def read_adaptation(folder: Path) -> Adaptation:
    """Read how the model in a folder was adapted.

    Raises:
        PixelCAMError: its `adaptation.json` is missing or damaged.
    """
    path = folder / ADAPTATION
    try:
        return _RECORD.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place}: {first['msg']}" if place else first["msg"]
    except OSError as error:
        if is_shortage(error):
            raise
        reason = error.strerror or first_line(error)
    raise PixelCAMError(f"{path}: does not say how the model was adapted ({reason}); run dvc repro")


def _read_asked_for(folder: Path, params: Params, domain: str) -> Adaptation:
    """Read how a model was adapted; raise a `PixelCAMError` unless that is as the params say."""
    found, asked = read_adaptation(folder), params.adaptation[domain]
    came, wanted = (found.domain, found.method, found.adapted_to), (domain, asked.method, asked.images)
    if came != wanted:
        raise PixelCAMError(
            f"{folder / ADAPTATION}: the params ask for {_words(*wanted)}, and the model was adapted by "
            f"{_words(*came)}; run dvc repro"
        )
    return found


def _words(domain: str, method: AdaptationMethod, images: AdaptedTo) -> str:
    return f"{method} on '{domain}', images {images}"
