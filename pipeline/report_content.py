"""Gather what the report shows: scores from files, and pictures of a few images that both models look at once more."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.config import Params
from pipeline.devices import make_fabric
from pipeline.domains import PreparedDomain
from pipeline.errors import PixelCAMError
from pipeline.files import sha256_of
from pipeline.images import read_image, read_mask
from pipeline.label_sheet import describe_rule
from pipeline.localization import Localizer
from pipeline.manifest import Manifest, ManifestRow, Split
from pipeline.model_files import DESCRIPTION, HISTORY, WEIGHTS
from pipeline.ood_evaluation import load_localizers, scored_images
from pipeline.reporting import (
    DomainReport,
    GalleryImage,
    LabelQuality,
    ModelView,
    ReportContent,
    TrainingImage,
)
from pipeline.score_tables import choose_images, read_per_image_table
from pipeline.scores import ModelName
from pipeline.store import PseudoLabelStore


@dataclass(frozen=True, kw_only=True)
class ReportSources:
    """Where the report's content lies: both models' folders, the store, and the files of the metrics."""

    teacher: Path
    pixelcam: Path
    store: Path
    scores: Path
    per_image: Path
    curves: Path
    label_quality: Path


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
    device = make_fabric().device
    store = PseudoLabelStore(sources.store)
    localizers, image_size = load_localizers(
        teacher=sources.teacher, pixelcam=sources.pixelcam, params=params, device=device
    )
    return ReportContent(
        domains=[
            DomainReport(
                name=domain.name,
                in_domain=domain.name == params.source,
                scores=scores[domain.name],
                gallery=list(_gallery(domain, localizers, per_image, params, image_size, device)),
            )
            for domain in domains
        ],
        histories={
            name.value: _read_csv(folder / HISTORY)
            for name, folder in ((ModelName.TEACHER, sources.teacher), (ModelName.PIXELCAM, sources.pixelcam))
        },
        curves=_read_csv(sources.curves, texts=("domain", "model")),
        label_rule=describe_rule(store.attributes),
        redrawn=params.train_pixelcam.redraw,
        label_quality=_label_quality(sources.label_quality),
        learned_from=list(_learned_from(domains[0], store, params)),
        provenance=_provenance(sources, params),
    )


def _gallery(
    domain: PreparedDomain,
    localizers: Mapping[ModelName, Localizer],
    per_image: pd.DataFrame,
    params: Params,
    image_size: int,
    device: torch.device,
) -> Iterator[GalleryImage]:
    """Yield the chosen test images of a domain with what both models make of them."""
    chosen = choose_images(per_image, domain=domain.name, count=params.report.images_per_domain)
    rows = {row.image: row for row in domain.manifest.of_split(Split.TEST).rows}
    shown = Manifest(tuple(rows[choice.image] for choice in chosen), domain.manifest.root)
    of_domain = per_image[per_image["domain"] == domain.name]
    for batch in scored_images(domain, shown, params, image_size=image_size):
        maps = {
            name: localizer(batch.images.to(device), batch.class_idx.to(device)).maps.cpu().numpy()
            for name, localizer in localizers.items()
        }
        for index, image_id in enumerate(batch.image_ids):
            views = {
                name: _view(of_domain, image_id, name, np.asarray(maps[name][index], dtype=np.float32))
                for name in localizers
            }
            yield GalleryImage(
                name=image_id,
                label=rows[image_id].label,
                reason=next(choice.reason for choice in chosen if choice.image == image_id),
                image=read_image(domain.manifest.root / image_id),
                mask=batch.masks[index].numpy() if bool(batch.has_mask[index]) else None,
                teacher=views[ModelName.TEACHER],
                pixelcam=views[ModelName.PIXELCAM],
            )


def _view(
    scores: pd.DataFrame, image_id: str, model: ModelName, heat: "np.ndarray[Any, np.dtype[np.float32]]"
) -> ModelView:
    row = scores[(scores["image"] == image_id) & (scores["model"] == model.value)].iloc[0]
    return ModelView(
        map=heat,
        predicted_class=str(row["predicted_class"]),
        dice=_number_or_none(row["dice"]),
        false_positive_share=_number_or_none(row["false_positive_share"]),
    )


def _learned_from(source: PreparedDomain, store: PseudoLabelStore, params: Params) -> Iterator[TrainingImage]:
    """Yield training images, evenly over their order, with the labels that PixelCAM drew its pixels from."""
    rows = source.manifest.of_split(Split.TRAIN).rows
    count = min(params.report.images_per_domain, len(rows))
    for index in np.linspace(0, len(rows) - 1, count).round().astype(int):
        row = rows[index]
        stored = store.read(row.image)
        yield TrainingImage(
            name=row.image,
            label=row.label,
            image=read_image(source.manifest.root / row.image),
            mask=_mask(source, row),
            cam=stored.cam.astype(np.float32),
            pseudo_labels=stored.labels,
        )


def _mask(domain: PreparedDomain, row: ManifestRow) -> "np.ndarray[Any, np.dtype[np.bool_]] | None":
    if row.mask:
        return read_mask(domain.manifest.root / row.mask)
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


def _provenance(sources: ReportSources, params: Params) -> dict[str, dict[str, str]]:
    """Return params, artifacts and versions as names and values."""
    description = _read_json(sources.pixelcam / DESCRIPTION)
    used = (params.source, *params.target_domains)
    values = params.model_dump(mode="json", exclude={"domains"})
    values["domains"] = {name: params.domain(name).model_dump(mode="json") for name in sorted(set(used))}
    return {
        "Parameters": dict(_flatten(values)),
        "Artifacts (SHA-256)": {
            "teacher weights": sha256_of(sources.teacher / WEIGHTS),
            "PixelCAM weights": sha256_of(sources.pixelcam / WEIGHTS),
            "scores": sha256_of(sources.scores),
        },
        "Made with": {
            "encoder": f"{description['encoder']['name']}, starting from {description['encoder']['weights']}",
            "device": str(description["device"]),
            **{name: str(version) for name, version in description["versions"].items()},
        },
    }


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


def _number_or_none(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[call-overload, arg-type]


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
