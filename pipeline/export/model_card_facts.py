"""All that a model card says, read from what the stages wrote: the model, its domains, its scores."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.data.manifest import MANIFEST, MANIFEST_PARQUET, PreparedDomain, Split
from pipeline.evaluation.adapted import Adaptation, read_adaptation
from pipeline.metrics.scores import ModelName, ThresholdSource
from pipeline.models.files import (
    ADAPTATION,
    DESCRIPTION,
    WEIGHTS,
    ModelInfo,
    check_kept,
    read_info,
    weights_file,
    weights_sha256,
)
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.types import GENERATED
from pipeline.params.vocabulary import Weights
from pipeline.runtime.files import is_shortage, sha256_of

OF_SCORES: Final = {"source", "target_domains", "cam", "pixelcam_map", "rounds", "adaptation", "evaluate_ood"}
OWN_ORIGINS: Final = ("random", "ImageNet (efficientnet-lite")  # of an encoder's weights, under the project's licence
SHOWN: Final = {"pxap": "PxAP", "dice": "Dice", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}


@dataclass(frozen=True, kw_only=True)
class DomainFacts:
    """What a domain is, and how many images it holds.

    `images`, `with_mask` and `patients` count by split: images, those whose region of interest is known, and patients
    that are known. `by_class` counts the training images of each class.
    """

    name: str
    classes: tuple[str, ...]
    background_class: str | None
    is_generated: bool
    is_reviewed: bool
    has_slides: bool
    images: Mapping[Split, int]
    with_mask: Mapping[Split, int]
    patients: Mapping[Split, int]
    by_class: tuple[int, ...]
    manifest_sha256: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """A score minus another, and its 95 % interval, fractions; None where it is not defined."""

    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class DomainScores:
    """A model's scores on the test images of a domain, fractions; None where one is not defined.

    Attributes:
        domain: which.
        scores: by the names in `SHOWN`.
        intervals: of 95 %, by the same names, where known.
        before: the scores of the model that it was adapted from; empty of others.
        changes: over the teacher, or of an adapted model over the one before; empty of a teacher.
        predicted: share of the images that are predicted as each class.
        pixel_ece: how far map values are from probabilities.
        ece: how far the confidence is from the accuracy; None where not known.
        whole: the rest of what evaluation wrote of a model that was not adapted, JSON values; empty of others.
    """

    domain: str
    scores: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    before: Mapping[str, float | None]
    changes: Mapping[str, Change]
    predicted: Mapping[str, float]
    pixel_ece: float | None
    ece: float | None
    whole: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What one card says.

    Attributes:
        name: of the model's folder, seen from the folder of all models.
        kind: which of the two.
        info: what it is built of.
        description: its `model.json`.
        sha256: of its files, by name: weights and description.
        weights: those that are scored.
        adaptation: how it was adapted; None where it was not.
        domains: it was scored on, the source first.
        scores: on these; an adapted model is scored on its domain and on the source.
        threshold: from which map value on there is a region.
        threshold_source: how that came about.
        params: of the run.
    """

    name: str
    kind: ModelName
    info: ModelInfo
    description: Mapping[str, Any]
    sha256: Mapping[str, str]
    weights: Weights
    adaptation: Adaptation | None
    domains: tuple[DomainFacts, ...]
    scores: tuple[DomainScores, ...]
    threshold: float
    threshold_source: ThresholdSource
    params: Params

    @property
    def scored_file(self) -> str:
        """The name of the file whose weights are scored."""
        kept = weights_file(self.weights)
        return kept if kept in self.sha256 else WEIGHTS

    @property
    def is_own_work(self) -> bool:
        """Whether all that it was made of is under the project's licence: drawn images, an encoder's free weights."""
        learned_from = {self.source.name} | ({self.adaptation.domain} if self.adaptation else set())
        drawn = all(domain.is_generated for domain in self.domains if domain.name in learned_from)
        return drawn and self.info.encoder.weights.startswith(OWN_ORIGINS)

    @property
    def source(self) -> DomainFacts:
        """The domain that the model learned from."""
        return self.domains[0]


def describe_domain(domain: PreparedDomain, params: Params) -> DomainFacts:
    """Count a domain's images; raise a `PixelCAMError` if its manifest cannot be read."""
    rows, background = domain.manifest.rows, domain.background_class_idx
    training = Counter(row.class_idx for row in rows if row.split is Split.TRAIN)
    known = {(row.split, row.patient) for row in rows if row.patient}
    with_mask = Counter(row.split for row in rows if row.mask or row.class_idx == background)
    images, patients = Counter(row.split for row in rows), Counter(split for split, _ in known)
    described = params.domain(domain.name)
    return DomainFacts(
        name=domain.name,
        classes=domain.classes,
        background_class=None if background is None else domain.classes[background],
        is_generated=isinstance(described, GENERATED),
        is_reviewed=described.review is not None,
        has_slides=any(row.slide for row in rows),
        images={split: images[split] for split in Split},
        with_mask={split: with_mask[split] for split in Split},
        patients={split: patients[split] for split in Split},
        by_class=tuple(training[class_idx] for class_idx in range(len(domain.classes))),
        manifest_sha256=_manifest_sha256(domain),
    )


def _manifest_sha256(domain: PreparedDomain) -> str:
    folder = domain.manifest.folder or domain.manifest.root
    table = folder / MANIFEST_PARQUET
    return sha256_of(table if table.exists() else folder / MANIFEST)


def params_sha256(params: Params) -> str:
    """Return the SHA-256 of the sections by which maps are read and scored, `OF_SCORES`, as JSON with sorted keys.

    Those of the training stand in `model.json`, which has a hash of its own.
    """
    values = params.model_dump(mode="json", include=OF_SCORES)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def gather_facts(
    name: str, *, models: Path, domains: tuple[DomainFacts, ...], scores: Path, adaptation: Path, params: Params
) -> CardFacts:
    """Return what the card of a model says.

    Args:
        name: of the model's folder, seen from `models`.
        models: the folder of all models.
        domains: all that models are scored on, the source first.
        scores: what `evaluate_ood` wrote, JSON.
        adaptation: what it wrote of adapted models, JSON.
        params: of the run.

    Raises:
        PixelCAMError: a file is missing, damaged, or does not speak of the model.
    """
    folder = models / name
    info = read_info(folder)
    kind = ModelName.TEACHER if info.pixel_head is None else ModelName.PIXELCAM
    record = read_adaptation(folder) if (folder / ADAPTATION).exists() else None
    weights = params.evaluate_ood.weights[0] if record is None else Weights.SELECTED
    check_kept(folder, weights)
    whole, adapted = _read_scores(scores), _read_scores(adaptation)
    try:
        if record is None:
            found = [_of_domain(domain.name, whole[domain.name][kind]) for domain in domains]
        else:
            found = _of_adapted(record.domain, adapted[record.domain]["models"][kind])
        home = whole[params.source][kind]
        return CardFacts(
            name=name,
            kind=kind,
            info=info,
            description=json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")),
            sha256=_hashes(folder, weights),
            weights=weights,
            adaptation=record,
            domains=domains,
            scores=tuple(found),
            threshold=float(home["threshold"]),
            threshold_source=ThresholdSource(home["threshold_source"]),
            params=params,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PixelCAMError(
            f"{scores if record is None else adaptation}: does not hold the scores of {folder} ({error!r}); "
            "run 'dvc repro evaluate_ood'"
        ) from error


def _read_scores(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if is_shortage(error):
            raise
        raise PixelCAMError(f"{path}: cannot be read as scores ({error}); run 'dvc repro evaluate_ood'") from error
    return found


def _hashes(folder: Path, weights: Weights) -> dict[str, str]:
    kept = weights_file(weights)
    scored = {} if kept == WEIGHTS or not (folder / kept).exists() else {kept: sha256_of(folder / kept)}
    return {WEIGHTS: weights_sha256(folder)} | scored | {DESCRIPTION: sha256_of(folder / DESCRIPTION)}


def _of_domain(domain: str, values: Mapping[str, Any]) -> DomainScores:
    intervals = {
        score: (float(ends["low"]), float(ends["high"]))
        for score, ends in values["intervals"].items()
        if ends["low"] is not None and ends["high"] is not None
    }
    return DomainScores(
        domain=domain,
        scores={score: _number(values[score]) for score in SHOWN},
        intervals=intervals,
        before={},
        changes=_changes(values.get("over_teacher", {})),
        predicted=values["predicted_classes"],
        pixel_ece=_number(values["pixel_ece"]),
        ece=_number(values["calibration"]["ece"]),
        whole=values,
    )


def _of_adapted(domain: str, values: Mapping[str, Any]) -> list[DomainScores]:
    """Return an adapted model's scores on the domain that it was adapted to, and on its source."""
    home = values["source_domain"]
    return [
        DomainScores(
            domain=name,
            scores={score: _number(places["adapted"][score]) for score in SHOWN},
            intervals={},
            before={score: _number(places["source_only"][score]) for score in SHOWN},
            changes=changes,
            predicted=places["adapted"]["predicted_classes"],
            pixel_ece=_number(places["adapted"]["pixel_ece"]),
            ece=None,
            whole={},
        )
        for name, places, changes in (
            (domain, values, _changes(values["over_source_only"])),
            (str(home["name"]), home, {}),
        )
    ]


def _changes(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Change]:
    return {
        score: Change(**{end: _number(change[end]) for end in ("difference", "low", "high")})
        for score, change in values.items()
    }


def _number(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]
