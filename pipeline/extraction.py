"""From a trained model to a store of pseudo-labels: a CAM for every training image, cut and written shard by shard."""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.collectives import in_order
from pipeline.config import ExtractionParams, Params
from pipeline.console import progress
from pipeline.devices import make_fabric
from pipeline.domains import PreparedDomain
from pipeline.errors import PixelCAMError
from pipeline.files import replacing_folder
from pipeline.label_quality import LabelQuality
from pipeline.labels import BACKGROUND
from pipeline.localization import Localizer
from pipeline.manifest import Split
from pipeline.model_files import weights_sha256
from pipeline.models import as_localizer, load_model, map_params
from pipeline.processes import is_first
from pipeline.pseudo_labels import make_pseudo_labels
from pipeline.resizing import resize_map
from pipeline.scored_set import ScoredSet
from pipeline.store import StoredImage, write_store


def extract_pseudo_labels(source: PreparedDomain, *, teacher: Path, params: Params, output: Path) -> dict[str, Any]:
    """Write the store of the source's training images and return the quality of its labels for `dvc metrics`.

    Args:
        source: the domain that the teacher was trained on; its masks serve for the quality alone.
        teacher: the folder of the model whose maps are cut: a teacher, or PixelCAM for another round.
        params: all parameters.
        output: the store; is replaced as a whole.

    Raises:
        PixelCAMError: there is no training image, one cannot be read, or the teacher is damaged.
    """
    model, info = load_model(teacher)
    device = make_fabric().device
    read = map_params(model, params)
    image_scale = read.image_scale
    localizer = as_localizer(model.to(device), params, image_scale=image_scale)
    section = params.extract_pseudo_labels
    images = ScoredSet(
        source.manifest.of_split(Split.TRAIN),
        image_size=round(image_scale * info.encoder.input_size),
        mask_size=info.encoder.input_size,
        batch_size=section.batch_size,
        background_class_idx=source.background_class_idx,
    )
    if len(images.manifest) == 0:
        raise PixelCAMError("the source domain has no training image; give some the split 'train'")
    background = source.background_class_idx
    quality = LabelQuality(source.classes)
    rows = chain.from_iterable(in_order(_rows(images.share(), localizer, section, background, device, quality)))
    attributes = {
        **section.model_dump(mode="json", exclude={"batch_size"}),
        "cam_method": "pixelcam",  # unless what follows names a method of CAM
        **{f"cam_{name}": value for name, value in read.model_dump(mode="json").items()},
        "background_class": None if background is None else source.classes[background],
        "classes": list(source.classes),
        "domain": source.name,
        "encoder": info.encoder.name,
        "image_ids": [row.image for row in images.manifest.rows],
        "teacher_sha256": weights_sha256(teacher),
    }
    if is_first():
        _write(output, rows, images, attributes)
    else:
        deque(rows, maxlen=0)  # there are none here, but the first process needs what is made on the way
    quality.join()
    return quality.summary()


def _write(output: Path, rows: Iterator[StoredImage], images: ScoredSet, attributes: dict[str, Any]) -> None:
    first = next(rows)  # tells the size of the CAMs
    with replacing_folder(output) as temporary:
        write_store(
            temporary,
            chain([first], rows),
            image_count=len(images.manifest),
            label_size=(images.mask_size, images.mask_size),
            cam_size=(first.cam.shape[0], first.cam.shape[1]),
            attributes=attributes,
        )


def _rows(
    images: ScoredSet,
    localizer: Localizer,
    params: ExtractionParams,
    background_class_idx: int | None,
    device: torch.device,
    quality: LabelQuality,
) -> Iterator[list[StoredImage]]:
    """Yield the rows of the store, batch by batch in the order of the manifest, counting their quality on the way."""
    for batch in progress(images, label="pseudo-labels"):
        cam = localizer(batch.images.to(device), batch.class_idx.to(device)).maps
        labels = make_pseudo_labels(resize_map(cam, (images.mask_size, images.mask_size)), params).cpu()
        labels[batch.class_idx == (-1 if background_class_idx is None else background_class_idx)] = BACKGROUND
        quality.update(labels, batch)
        stored_cam = cam.cpu().numpy().astype(np.float16)
        yield [
            StoredImage(labels[index].numpy(), stored_cam[index], class_idx)
            for index, class_idx in enumerate(batch.class_idx.tolist())
        ]
