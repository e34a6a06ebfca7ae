"""The images that an export needs: real ones to be checked on, and of the model's own domain to be fitted on."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.data.manifest import Manifest, PreparedDomain, Split
from pipeline.data.pixels import UInt8Image, read_row
from pipeline.evaluation.domains import scored_images
from pipeline.evaluation.fitting import fit_on_validation
from pipeline.metrics.scores import ModelName, Threshold
from pipeline.models.loading import as_localizer, load_net, map_params
from pipeline.models.pixelcam import PixelCAM
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.devices import make_fabric

PER_CLASS: Final = 3  # images of a domain that an export is checked on
SMALLEST_CUT: Final = 16  # pixels


def checking_images(domain: PreparedDomain) -> list[UInt8Image]:
    """Return images of every class of a domain, validation's where there are any, and two of them in other sizes.

    Raises:
        PixelCAMError: the domain has none, or one cannot be read.
    """
    found = pick_images(_rows_to_look_at(domain), count=PER_CLASS * len(domain.classes))
    return with_other_sizes(found)


def with_other_sizes(images: Sequence[UInt8Image]) -> list[UInt8Image]:
    """Return images, and the first one's upper left part, which is wide, and one enlarged to twice its height."""
    first = images[0]
    height, width = max(first.shape[0] // 2, SMALLEST_CUT), max(2 * first.shape[1] // 3, SMALLEST_CUT)
    return [*images, first[:height, :width].copy(), np.repeat(first, 2, axis=0)]


def pick_images(manifest: Manifest, *, count: int) -> list[UInt8Image]:
    """Read so many images of a manifest, the classes in turn; fewer where there are fewer."""
    of_class: dict[int, list[int]] = {}
    for index, row in enumerate(manifest.rows):
        of_class.setdefault(row.class_idx, []).append(index)
    rounds = max((len(indices) for indices in of_class.values()), default=0)
    in_turn = (of_class[label][at] for at in range(rounds) for label in sorted(of_class) if at < len(of_class[label]))
    return [read_row(manifest, manifest.rows[index]) for index in islice(in_turn, count)]


def fit_threshold(folder: Path, params: Params, domain: PreparedDomain) -> Threshold:
    """Choose a model's threshold on the validation images of the domain it learned from, as `evaluate_ood` does.

    Of a model read from one view it is another than that of many views. Without validation images it is 0.5, and is
    said to be fixed.
    """
    net, _ = load_net(folder, params.evaluate_ood.weights[0])
    fabric, scale = make_fabric(), map_params(net, params).image_scale
    name = ModelName.PIXELCAM if isinstance(net, PixelCAM) else ModelName.TEACHER
    validation = scored_images(
        domain,
        domain.manifest.of_split(Split.VAL),
        params,
        image_size=round(scale * net.encoder.spec.input_size),
        selectable_only=True,
    )
    fitted = fit_on_validation(
        {name: as_localizer(net.to(fabric.device), params, image_scale=scale)},
        validation,
        rule=params.evaluate_ood.threshold,
        presumed=params.evaluate_ood.mask_free,
        map_size=params.evaluate_ood.map_size,
        device=fabric.device,
        autocast=fabric.autocast,
    )
    return fitted[name].threshold


def _rows_to_look_at(domain: PreparedDomain) -> Manifest:
    for split in (Split.VAL, Split.TRAIN, Split.TEST):
        rows = domain.manifest.of_split(split)
        if rows.rows:
            return rows
    raise PixelCAMError(f"domain '{domain.name}' has no image to check an export on; give some with --image")
