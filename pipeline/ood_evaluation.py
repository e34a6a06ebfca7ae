"""Score teacher and PixelCAM on the source and on domains that they never saw."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from pipeline.config import Params
from pipeline.console import progress
from pipeline.devices import make_fabric
from pipeline.domain_scores import Resampling
from pipeline.domains import PreparedDomain
from pipeline.evaluation import EvaluationDomain, evaluate_domain, fit_on_validation
from pipeline.localization import Localizer
from pipeline.manifest import Manifest, Split
from pipeline.pixelcam import PixelCAMLocalizer, load_pixelcam
from pipeline.scored_set import ScoredSet
from pipeline.scores import Evaluation, ModelName
from pipeline.teacher import load_teacher
from pipeline.teacher_localizer import TeacherLocalizer


def evaluate_models(
    domains: Sequence[PreparedDomain], *, teacher: Path, pixelcam: Path, params: Params
) -> list[Evaluation]:
    """Score both models on the test images of every domain.

    Args:
        domains: the target domains, the source among them: its validation images choose thresholds and temperatures.
        teacher: the teacher's folder.
        pixelcam: PixelCAM's folder.
        params: all parameters.

    Raises:
        PixelCAMError: a model is damaged, an image cannot be read, or a domain has no test image.
    """
    device = make_fabric().device
    localizers, image_size = load_localizers(teacher=teacher, pixelcam=pixelcam, params=params, device=device)
    source = next(domain for domain in domains if domain.name == params.source)
    fitted = fit_on_validation(
        localizers,
        scored_images(source, source.manifest.of_split(Split.VAL), params, image_size=image_size, selectable_only=True),
        map_size=params.evaluate_ood.map_size,
        device=device,
    )
    evaluations: list[Evaluation] = []
    for domain in domains:
        images = scored_images(domain, domain.manifest.of_split(Split.TEST), params, image_size=image_size)
        evaluations.extend(
            evaluate_domain(
                localizers,
                EvaluationDomain(
                    name=domain.name,
                    classes=domain.classes,
                    batches=progress(images, label=f"evaluating on {domain.name}"),
                    patients={row.image: row.patient for row in domain.manifest.rows},
                ),
                fitted=fitted,
                map_size=params.evaluate_ood.map_size,
                resampling=Resampling(params.evaluate_ood.resamples, params.seed),
                device=device,
            )
        )
    return evaluations


def load_localizers(
    *, teacher: Path, pixelcam: Path, params: Params, device: torch.device
) -> tuple[Mapping[ModelName, Localizer], int]:
    """Load both models onto a device, ready to localize, and return the size in pixels to read images at."""
    teacher_model, info = load_teacher(teacher, params.evaluate_ood.weights)
    pixelcam_model, _ = load_pixelcam(pixelcam, params.evaluate_ood.weights)
    image_scale = max(params.cam.image_scale, params.pixelcam_map.image_scale)
    localizers: dict[ModelName, Localizer] = {
        ModelName.TEACHER: TeacherLocalizer(teacher_model.to(device), params.cam, image_scale=image_scale),
        ModelName.PIXELCAM: PixelCAMLocalizer(pixelcam_model.to(device), params.pixelcam_map, image_scale=image_scale),
    }
    return localizers, round(image_scale * info.encoder.input_size)


def scored_images(
    domain: PreparedDomain, manifest: Manifest, params: Params, *, image_size: int, selectable_only: bool = False
) -> ScoredSet:
    """Return images of a domain at `image_size` pixels, with masks at the size they are scored at."""
    return ScoredSet(
        manifest,
        image_size=image_size,
        mask_size=params.evaluate_ood.map_size,
        batch_size=params.evaluate_ood.batch_size,
        background_class_idx=domain.background_class_idx,
        selectable_only=selectable_only,
    )
