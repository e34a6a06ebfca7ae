"""From a trained model to a store of pseudo-labels: a CAM for every training image, cut and written shard by shard."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from lightning_fabric import Fabric

from pipeline.data.manifest import PreparedDomain, Split
from pipeline.data.maps import Localizer, resize_map
from pipeline.data.scored_set import ScoredSet
from pipeline.models.files import ModelInfo, weights_sha256
from pipeline.models.loading import as_localizer, load_net, map_params
from pipeline.models.pixelcam import PixelCAM
from pipeline.models.teacher import Teacher
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import BACKGROUND, PixelClasses, Refinement, name_pixel_classes
from pipeline.pseudo_labels.quality import LabelQuality
from pipeline.pseudo_labels.refinement import PARAMETERS, refine_cams
from pipeline.pseudo_labels.store import StoredImage, write_store
from pipeline.pseudo_labels.thresholding import make_pseudo_labels, name_foreground
from pipeline.runtime.collectives import in_order
from pipeline.runtime.console import progress
from pipeline.runtime.devices import Fetched, make_fabric, to_device
from pipeline.runtime.files import replacing_folder
from pipeline.runtime.processes import is_first
from pipeline.runtime.threads import launch_ahead


class _Labelled(NamedTuple):
    """A batch whose labels, uint8 (B, S, S), and CAMs, float16 (B, h, w), may still be under way from the device."""

    class_idx: list[int]
    labels_and_cam: Fetched


def extract_pseudo_labels(
    source: PreparedDomain, *, teacher: Path, params: Params, output: Path, depth: int | None = None
) -> dict[str, Any]:
    """Write the store of the source's training images and return the quality of its labels for `dvc metrics`.

    Args:
        source: the domain that the teacher was trained on; its masks serve for the quality alone.
        teacher: the folder of the model whose maps are cut: a teacher, or PixelCAM for another round.
        params: all parameters.
        output: the store; is replaced as a whole.
        depth: how many batches more the device is given while one's rows are made; see `launch_ahead`.

    Raises:
        PixelCAMError: there is no training image, one cannot be read, or the teacher is damaged.
    """
    model, info = load_net(teacher)
    return extract_from(model, info, source, made_by=weights_sha256(teacher), params=params, output=output, depth=depth)


def extract_from(
    model: Teacher | PixelCAM,
    info: ModelInfo,
    source: PreparedDomain,
    *,
    made_by: str,
    params: Params,
    output: Path,
    depth: int | None = None,
) -> dict[str, Any]:
    """Do the same with a model at hand, which `info` describes and the SHA-256 `made_by` names in the store."""
    fabric = make_fabric()
    read = map_params(model, params)
    image_scale = read.image_scale
    localizer = as_localizer(model.to(fabric.device), params, image_scale=image_scale)
    section = params.extract_pseudo_labels
    images = ScoredSet(
        source.manifest.of_split(Split.TRAIN),
        image_size=round(image_scale * info.encoder.input_size),
        mask_size=info.encoder.input_size,
        batch_size=section.batch_size,
        background_class_idx=source.background_class_idx,
    )
    if len(images.manifest) == 0:
        raise PixelCAMError("the domain to label has no training image; give some the split 'train'")
    background = source.background_class_idx
    quality = LabelQuality(source.classes, device=fabric.device)
    labelled = _labelled(images.share(), localizer, params, background, fabric, quality)
    rows = chain.from_iterable(in_order(_rows(launch_ahead(labelled, depth=depth))))
    attributes = {
        **section.model_dump(mode="json", exclude={"batch_size", "refine"}),
        **_describe_refinement(section.refine),
        "cam_method": "pixelcam",  # unless what follows names a method of CAM
        **{f"cam_{name}": value for name, value in read.model_dump(mode="json").items()},
        "background_class": None if background is None else source.classes[background],
        "classes": list(source.classes),
        "domain": source.name,
        "encoder": info.encoder.name,
        "image_ids": [row.image for row in images.manifest.rows],
        "precision": str(fabric.strategy.precision.precision),
        "teacher_sha256": made_by,
    }
    if is_first():
        names = name_pixel_classes(params.model.pixel_classes, source.classes)
        _write(output, rows, images, pixel_classes=names, attributes=attributes)
    else:
        deque(rows, maxlen=0)  # there are none here, but the first process needs what is made on the way
    quality.join()
    return quality.summary()


def _describe_refinement(refine: Refinement) -> dict[str, Any]:
    """Return what the store says of it: nothing where there is none, as stores did before there was any."""
    return {} if refine is Refinement.NONE else {"refine": refine.value, "refine_parameters": PARAMETERS[refine]}


def _write(
    output: Path,
    rows: Iterator[StoredImage],
    images: ScoredSet,
    *,
    pixel_classes: tuple[str, ...],
    attributes: dict[str, Any],
) -> None:
    first = next(rows)  # tells the size of the CAMs
    with replacing_folder(output) as temporary:
        write_store(
            temporary,
            chain([first], rows),
            image_count=len(images.manifest),
            label_size=(images.mask_size, images.mask_size),
            cam_size=(first.cam.shape[0], first.cam.shape[1]),
            pixel_classes=pixel_classes,
            attributes=attributes,
        )


def _labelled(
    images: ScoredSet,
    localizer: Localizer,
    params: Params,
    background_class_idx: int | None,
    fabric: Fabric,
    quality: LabelQuality,
) -> Iterator[_Labelled]:
    """Launch batch by batch, in the order of the manifest, and count the quality of the labels.

    No device is waited for, unless maps are refined on the processor.
    """
    section = params.extract_pseudo_labels
    for batch in progress(images, label="pseudo-labels"):
        pixels, class_idx = to_device(batch.images, fabric.device), to_device(batch.class_idx, fabric.device)
        with fabric.autocast():
            cam = localizer(pixels, class_idx).maps
        refined = refine_cams(resize_map(cam, (images.mask_size, images.mask_size)), pixels, section)
        labels = make_pseudo_labels(refined, section)
        if background_class_idx is not None:
            labels.masked_fill_((class_idx == background_class_idx)[:, None, None], BACKGROUND)
        quality.update(labels, batch)
        if params.model.pixel_classes is PixelClasses.IMAGE_CLASSES:
            labels = name_foreground(labels, class_idx)
        yield _Labelled(batch.class_idx.tolist(), Fetched(labels, cam.half()))


def _rows(labelled: Iterable[_Labelled]) -> Iterator[list[StoredImage]]:
    """Yield the rows of the store, batch by batch."""
    for batch in labelled:
        labels, cam = (tensor.numpy() for tensor in batch.labels_and_cam.wait())
        yield [StoredImage(*row) for row in zip(labels, cam, batch.class_idx, strict=True)]
