"""The images of the gallery, and what models make of them: they run here, on the images that are shown alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.data.image_store import SquareReader
from pipeline.data.manifest import PreparedDomain, Split
from pipeline.data.maps import EvaluationBatch, Localization, Localizer, resize_map
from pipeline.data.pixels import read_row
from pipeline.evaluation.at_test_time import Adapter
from pipeline.evaluation.domains import Chain, Models, load_models, read_size, scored_images
from pipeline.evaluation.localizers import image_values, resize_maps
from pipeline.evaluation.tables import choose_images
from pipeline.metrics.localization import count_maps
from pipeline.metrics.scores import ModelName
from pipeline.models.pixelcam import load_pixelcam
from pipeline.params.config import Params
from pipeline.params.vocabulary import BACKGROUND, Weights
from pipeline.report.parts import GalleryImage, ModelView
from pipeline.runtime.devices import make_fabric


@dataclass(frozen=True, kw_only=True, eq=False)
class Looker:
    """The models on their device, and what is done at test time before they look at images of `image_size` pixels.

    `adapted` has the folder of PixelCAM adapted to a domain, by the domain's name.
    """

    models: Models
    adapted: Mapping[str, Path]
    adapter: Adapter
    params: Params
    image_size: int
    device: torch.device

    def localizers(self, domain: PreparedDomain) -> dict[ModelName, Localizer]:
        """Return the models as they were scored on a domain."""
        return self._scored(domain, self.models)

    def adapted_localizer(self, domain: PreparedDomain) -> Localizer | None:
        """Return PixelCAM adapted to a domain, as it was scored there; None where it was not adapted to it."""
        if domain.name not in self.adapted:
            return None
        pixelcam, _ = load_pixelcam(self.adapted[domain.name], Weights.SELECTED)
        return self._scored(domain, {ModelName.PIXELCAM: pixelcam.to(self.device)})[ModelName.PIXELCAM]

    def _scored(self, domain: PreparedDomain, models: Models) -> dict[ModelName, Localizer]:
        tested = scored_images(domain, domain.manifest.of_split(Split.TEST), self.params, image_size=self.image_size)
        return self.adapter(models, tested, device=self.device)


def load_looker(source: PreparedDomain, chain: Chain, *, adapted: Mapping[str, Path], params: Params) -> Looker:
    """Load both models of a chain, and fit on the source what is done at test time.

    Args:
        source: the domain that they come from.
        chain: their folders.
        adapted: by domain, the folder of PixelCAM adapted to it.
        params: all parameters.

    Raises:
        PixelCAMError: a model is missing or damaged.
    """
    device = make_fabric().device
    image_size = read_size(chain, params)
    adapter = Adapter(
        params.evaluate_ood.test_time[0],
        params,
        image_scale=max(params.cam.image_scale, params.pixelcam_map.image_scale),
        source=lambda: SquareReader(source.manifest.of_split(Split.TRAIN), size=image_size),
    )
    models = load_models(chain, params.evaluate_ood.weights[0], device=device)
    return Looker(models=models, adapted=adapted, adapter=adapter, params=params, image_size=image_size, device=device)


def look_at_gallery(domain: PreparedDomain, looker: Looker, per_image: pd.DataFrame) -> Iterator[GalleryImage]:
    """Yield the chosen test images of a domain with what the models make of them.

    Args:
        domain: the domain.
        looker: the models.
        per_image: their scores, as `read_per_image_table` gives them.

    Raises:
        PixelCAMError: an image, or a model adapted to the domain, is missing or damaged.
    """
    chosen = choose_images(per_image, domain=domain.name, count=looker.params.report.images_per_domain)
    rows = {row.image: row for row in domain.manifest.of_split(Split.TEST).rows}
    shown = replace(domain.manifest, rows=tuple(rows[choice.image] for choice in chosen))
    of_domain = per_image[per_image["domain"] == domain.name]
    localizers, adapted = looker.localizers(domain), looker.adapted_localizer(domain)
    for batch in scored_images(domain, shown, looker.params, image_size=looker.image_size):
        said = {
            name: localizer(batch.images.to(looker.device), batch.class_idx.to(looker.device))
            for name, localizer in localizers.items()
        }
        after = None if adapted is None else _adapted_views(adapted, batch, domain, of_domain, looker)
        for index, image_id in enumerate(batch.image_ids):
            views = {
                name: _view(of_domain, image_id, name, found, index, side=looker.params.evaluate_ood.map_size)
                for name, found in said.items()
            }
            yield GalleryImage(
                name=image_id,
                label=rows[image_id].label,
                reason=next(choice.reason for choice in chosen if choice.image == image_id),
                image=read_row(domain.manifest, rows[image_id]),
                mask=batch.masks[index].numpy() if bool(batch.has_mask[index]) else None,
                teacher=views[ModelName.TEACHER],
                pixelcam=views[ModelName.PIXELCAM],
                adapted=None if after is None else after[index],
            )


def _view(
    scores: pd.DataFrame, image_id: str, model: ModelName, said: Localization, index: int, *, side: int
) -> ModelView:
    """Return what a model said about the image at `index` of a batch; pixels' classes as they are scored, at `side`."""
    row = scores[(scores["image"] == image_id) & (scores["model"] == model.value)].iloc[0]
    heat, classes = said.maps[index : index + 1].float(), None
    if said.class_maps is not None:
        best = 1 + resize_map(said.class_maps[index : index + 1].float(), (side, side)).argmax(dim=1)
        region = resize_map(heat, (side, side)) >= float(row["threshold"])
        classes = best.where(region, BACKGROUND)[0].to(torch.uint8).cpu().numpy()
    return ModelView(
        map=heat[0].cpu().numpy(),
        classes=classes,
        predicted_class=str(row["predicted_class"]),
        dice=_number_or_none(row["dice"]),
        false_positive_share=_number_or_none(row["false_positive_share"]),
    )


def _adapted_views(
    localizer: Localizer, batch: EvaluationBatch, domain: PreparedDomain, scores: pd.DataFrame, looker: Looker
) -> list[ModelView]:
    """Return what adapted PixelCAM says about each image of a batch, measured as the scores of images are.

    Its regions are cut where those of PixelCAM before are: a hospital has no masks to choose another threshold by.
    """
    threshold = float(scores.loc[scores["model"] == ModelName.PIXELCAM.value, "threshold"].iloc[0])
    said = localizer(batch.images.to(looker.device), batch.class_idx.to(looker.device))
    maps: Tensor = said.maps.detach().float()  # (B, h, w)
    compared = resize_maps(maps, map_size=looker.params.evaluate_ood.map_size)
    values = image_values(
        said.image_logits.detach().float().cpu(),
        count_maps(compared, target=batch.masks, ignore=batch.ignore).histograms,
        batch,
        aps=np.full(len(maps), np.nan),
        threshold=threshold,
    )
    return [
        ModelView(
            map=heat,
            predicted_class=domain.classes[int(of_image["predicted_idx"])],
            dice=_number_or_none(of_image["dice"]),
            false_positive_share=_number_or_none(of_image["false_positive_share"]),
        )
        for heat, of_image in zip(maps.cpu().numpy(), values, strict=True)
    ]


def _number_or_none(value: Any) -> float | None:  # noqa: ANN401 - of a table
    return None if pd.isna(value) else float(value)
