"""Gather what the report shows: scores from files, and pictures of a few images that both models look at once more."""

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from pipeline.data.manifest import ManifestRow, PreparedDomain, Split
from pipeline.data.pixels import read_row, read_row_mask
from pipeline.evaluation.domains import Chain
from pipeline.evaluation.tables import read_per_image_table
from pipeline.metrics.scores import ModelName
from pipeline.models.files import DESCRIPTION, HISTORY, WEIGHTS
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import Selection, name_pixel_classes
from pipeline.pseudo_labels.store import PseudoLabelStore
from pipeline.report.adaptation_files import read_adaptations
from pipeline.report.gallery import load_looker, look_at_gallery
from pipeline.report.matrix import read_matrix
from pipeline.report.overlays import describe_rule
from pipeline.report.parts import (
    DomainReport,
    LabelQuality,
    LabelRound,
    PixelLabels,
    ReportContent,
    Setting,
    TrainingImage,
)
from pipeline.report.provenance import commit_of_files, hash_of_files
from pipeline.report.slide_files import read_slides
from pipeline.runtime.files import sha256_of

TRAINING_IMAGES: Final = 12  # at most: they show what labels look like, however large the gallery
FIRST_LEARNER: Final = "pixelcam"


@dataclass(frozen=True, kw_only=True)
class ReportSources:
    """Where the report's content lies.

    Attributes:
        teacher: the teacher's folder.
        pixelcam: the folder of PixelCAM's last round.
        stores: the pseudo-labels of each round, by the name of the model that learned from them, in their order.
        label_quality: their quality, likewise.
        scores: JSON.
        per_image: CSV.
        curves: CSV.
        matrix: CSV.
        adaptation: JSON.
        adapted: by domain, the folder of PixelCAM adapted to it.
        slides: the folder of whole slides.
        code: the files that make the page, in the order in which they are hashed.
        root: the folder of the project, above `code`.
    """

    teacher: Path
    pixelcam: Path
    stores: Mapping[str, Path]
    label_quality: Mapping[str, Path]
    scores: Path
    per_image: Path
    curves: Path
    matrix: Path
    adaptation: Path
    adapted: Mapping[str, Path]
    slides: Path
    code: Sequence[Path]
    root: Path


def of_rounds(first: Path, rounds: Mapping[str, str]) -> dict[str, Path]:
    """Return a file or folder of every round, by the model that learned from it: `first`, and its neighbours."""
    return {FIRST_LEARNER: first} | {name: first.with_name(f"{first.stem}_{name}{first.suffix}") for name in rounds}


def gather_report(domains: list[PreparedDomain], sources: ReportSources, params: Params) -> ReportContent:
    """Return the content of the report; both models run on the images it shows, and on no others.

    Args:
        domains: the target domains, the source among them.
        sources: where everything lies.
        params: all parameters.

    Raises:
        PixelCAMError: a file is missing or damaged.
    """
    domains = sorted(domains, key=lambda domain: domain.name != params.source)
    scores = _read_scores(sources.scores, domains)
    per_image = read_per_image_table(sources.per_image)
    matrix = read_matrix(sources.matrix)
    adaptations = read_adaptations(
        sources.adaptation, [domain.name for domain in domains if domain.name in sources.adapted]
    )
    chain = Chain(teacher=sources.teacher, pixelcam=sources.pixelcam)
    looker = load_looker(domains[0], chain, adapted=sources.adapted, params=params)
    stores = {learner: PseudoLabelStore(path) for learner, path in sources.stores.items()}
    return ReportContent(
        domains=[
            DomainReport(
                name=domain.name,
                in_domain=domain.name == params.source,
                scores=scores[domain.name],
                gallery=list(look_at_gallery(domain, looker, per_image)),
            )
            for domain in domains
        ],
        histories={
            name.value: _read_csv(folder / HISTORY)
            for name, folder in ((ModelName.TEACHER, sources.teacher), (ModelName.PIXELCAM, sources.pixelcam))
        },
        curves=_read_csv(sources.curves, texts=("domain", "model")),
        confidences=per_image[["domain", "model", "confidence", "correct"]],
        matrix=matrix,
        rounds=[
            LabelRound(
                learner=learner,
                maps=_describe_maps(store, params.rounds.get(learner)),
                rule=describe_rule(store.attributes),
                quality=_label_quality(sources.label_quality[learner]),
            )
            for learner, store in stores.items()
        ],
        learned_from=list(_learned_from(domains[0], list(stores.values()), params)),
        setting=_setting(params),
        provenance=_provenance(domains, sources, params),
        slides=read_slides(sources.slides, domains, most=params.report.images_per_domain),
        adaptations=adaptations,
    )


def _describe_maps(store: PseudoLabelStore, previous: str | None) -> str:
    """Say whose maps a store's labels were cut from: the teacher's, or those of the round before."""
    return f"the teacher's CAM ({store.attributes['cam_method']})" if previous is None else f"the map of {previous}"


def _setting(params: Params) -> Setting:
    trainings = {"teacher": params.train_teacher, "pixelcam": params.train_pixelcam}
    return Setting(
        approach=params.train_pixelcam.approach,
        pixel_head=params.pixel_head,
        pixel_classes=name_pixel_classes(params.model.pixel_classes, params.domain(params.source).classes),
        redraw=params.train_pixelcam.redraw,
        scored=params.evaluate_ood.weights[0],
        test_time=params.evaluate_ood.test_time[0],
        selections={model: training.selection.value for model, training in trainings.items()},
        masks_select=any(training.selection is Selection.VAL_PXAP for training in trainings.values()),
    )


def _learned_from(
    source: PreparedDomain, stores: Sequence[PseudoLabelStore], params: Params
) -> Iterator[TrainingImage]:
    """Yield training images, evenly over their order, with the labels of every round."""
    rows = source.manifest.of_split(Split.TRAIN).rows
    count = min(params.report.images_per_domain, TRAINING_IMAGES, len(rows))
    for index in np.linspace(0, len(rows) - 1, count).round().astype(int):
        row = rows[index]
        stored = [store.read(row.image) for store in stores]
        yield TrainingImage(
            name=row.image,
            label=row.label,
            image=read_row(source.manifest, row),
            mask=_mask(source, row),
            rounds=[PixelLabels(map=each.cam.astype(np.float32), labels=each.labels) for each in stored],
        )


def _mask(domain: PreparedDomain, row: ManifestRow) -> "np.ndarray[Any, np.dtype[np.bool_]] | None":
    if row.mask:
        return read_row_mask(domain.manifest, row, row.mask)
    return np.zeros((row.height, row.width), dtype=np.bool_) if row.class_idx == domain.background_class_idx else None


def _label_quality(path: Path) -> list[LabelQuality]:
    """Turn the summary of the extraction into rows of the table, all classes together last."""
    summary = _read_json(path)
    try:
        return [
            LabelQuality(
                class_name=name if name != "all" else "all classes",
                foreground_share=summary[name]["share"]["foreground"],
                background_share=summary[name]["share"]["background"],
                ignore_share=summary[name]["share"]["ignore"],
                foreground_precision=summary[name]["precision"]["foreground"],
                background_precision=summary[name]["precision"]["background"],
                foreground_recall=summary[name]["recall"]["foreground"],
                background_recall=summary[name]["recall"]["background"],
            )
            for name in [*(name for name in summary if name != "all"), "all"]
            if summary[name]["share"]["ignore"] is not None
        ]
    except (KeyError, TypeError) as error:
        raise PixelCAMError(f"{path}: holds no label quality ({error!r}); run 'dvc repro'") from error


def _provenance(domains: Sequence[PreparedDomain], sources: ReportSources, params: Params) -> dict[str, dict[str, str]]:
    """Return code, params, artifacts and versions as names and values."""
    description = _read_json(sources.pixelcam / DESCRIPTION)
    used = (params.source, *params.target_domains)
    values = params.model_dump(mode="json", exclude={"domains"})
    values["domains"] = {name: params.domain(name).model_dump(mode="json") for name in sorted(set(used))}
    return {
        "Code and versions": {
            "git commit": commit_of_files(sources.code, root=sources.root),
            "code (SHA-256)": hash_of_files(sources.code, root=sources.root),
            "encoder": f"{description['encoder']['name']}, starting from {description['encoder']['weights']}",
            "device of the training": str(description["device"]),
            **{name: str(number) for name, number in description["versions"].items()},
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "matplotlib", "pillow", "jinja2")},
        },
        "Artifacts (SHA-256)": {
            "teacher weights": sha256_of(sources.teacher / WEIGHTS),
            "PixelCAM weights": sha256_of(sources.pixelcam / WEIGHTS),
            "scores": sha256_of(sources.scores),
            "scores of each image": sha256_of(sources.per_image),
            "domain matrix": sha256_of(sources.matrix),
            **{f"PixelCAM adapted to {name}": sha256_of(path / WEIGHTS) for name, path in sources.adapted.items()},
            **{f"images and masks of {domain.name}": _hash_of_images(domain) for domain in domains},
        },
        "Parameters": dict(_flatten(values)),
    }


def _hash_of_images(domain: PreparedDomain) -> str:
    """Return one SHA-256 over the names and checksums of a domain's images and masks."""
    lines = (f"{row.image} {row.image_sha256} {row.mask_sha256}\n" for row in domain.manifest.rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


def _read_scores(path: Path, domains: Iterable[PreparedDomain]) -> dict[str, Any]:
    scores = _read_json(path)
    for domain in domains:
        if set(scores.get(domain.name, ())) != {name.value for name in ModelName}:
            raise PixelCAMError(f"{path}: lacks the scores of both models on '{domain.name}'; run 'dvc repro'")
    return scores


def _read_csv(path: Path, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table; the columns `texts` stay text, even "NA" or "007"."""
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(texts, "str"), keep_default_na=not texts)
    except (OSError, ValueError) as error:
        raise PixelCAMError(f"{path}: cannot be read ({error}); run 'dvc repro'") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PixelCAMError(f"{path}: cannot be read ({error}); run 'dvc repro'") from error
    if not isinstance(content, dict):
        raise PixelCAMError(f"{path}: expected a JSON object, got {type(content).__name__}; run 'dvc repro'")
    return content
