"""Where a run's models look on an image, asked when somebody wants to see it, and kept.

A teacher's CAM is taken for the true class, as it is when it is scored and when labels are cut from it.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from threading import Lock
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.image_store import square_batch
from pipeline.data.manifest import Manifest, ManifestRow
from pipeline.data.maps import Localizer
from pipeline.data.pixels import read_row
from pipeline.metrics.scores import ModelName
from pipeline.models.files import weights_sha256
from pipeline.models.loading import as_localizer, load_net, map_params
from pipeline.params.config import Params
from pipeline.params.errors import PixelCAMError
from pipeline.runtime.devices import make_fabric, to_device
from pipeline.viewer.cache import Cache
from pipeline.viewer.pictures import pixels_sha256

Map = NDArray[np.float32]  # (h, w) in [0, 1], as large as the model makes it


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A model ready to be asked, the side of the square that it is given, its classes, and what determines its maps."""

    localizer: Localizer
    side: int
    classes: int
    key: str


class ModelMaps:
    """Maps of one model; it is loaded when the first is wanted.

    Args:
        folder: of the model.
        params: how maps are read, and which weights.
        cache: where maps are kept.
    """

    def __init__(self, folder: Path, params: Params, cache: Cache) -> None:
        self._folder = folder
        self._params = params
        self._cache = cache
        self._fabric = make_fabric()
        self._lock = Lock()  # one image at a time: a second one would only take the first one's cores

    def read(self, manifest: Manifest, row: ManifestRow) -> Map:
        """Return where the model looks on an image, float32 (h, w) in [0, 1].

        Raises:
            PixelCAMError: the model or the image is missing or damaged, or the model does not know its class.
        """
        with self._lock:
            loaded = self._loaded
        if row.class_idx >= loaded.classes:
            raise PixelCAMError(
                f"{self._folder}: tells {loaded.classes} classes apart, but the image is of class {row.class_idx + 1}"
            )
        key = f"{loaded.key} {pixels_sha256(row)} {row.class_idx}"
        return _decode(self._cache.get("maps", key, lambda: _encode(self._ask(loaded, manifest, row))))

    @cached_property
    def _loaded(self) -> _Loaded:
        weights = self._params.evaluate_ood.weights[0]
        net, info = load_net(self._folder, weights)
        read = map_params(net, self._params)
        localizer = as_localizer(net.to(self._fabric.device), self._params, image_scale=read.image_scale)
        key = json.dumps([weights_sha256(self._folder), weights, read.model_dump(mode="json")])
        return _Loaded(localizer, round(read.image_scale * info.encoder.input_size), len(info.classes), key)

    def _ask(self, loaded: _Loaded, manifest: Manifest, row: ManifestRow) -> Map:
        image = read_row(manifest, row)
        with self._lock, self._fabric.autocast():
            batch = to_device(square_batch([image], loaded.side), self._fabric.device)
            class_idx = to_device(torch.tensor([row.class_idx]), self._fabric.device)
            found: Map = loaded.localizer(batch, class_idx).maps[0].float().clamp(0, 1).cpu().numpy()
            return found


def models_of(params: Params, folder: Path, cache: Cache) -> dict[ModelName, ModelMaps]:
    """Return both models of a run, the teacher and the PixelCAM of the last round, neither of them loaded yet."""
    names = {ModelName.TEACHER: "teacher", ModelName.PIXELCAM: params.final_model}
    return {model: ModelMaps(folder / name, params, cache) for model, name in names.items()}


def _encode(heat: Map) -> bytes:
    file = BytesIO()
    np.savez_compressed(file, map=heat.astype(np.float16))
    return file.getvalue()


def _decode(kept: bytes) -> Map:
    try:
        with np.load(BytesIO(kept), allow_pickle=False) as file:
            heat: Map = file["map"].astype(np.float32)
            return heat
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise PixelCAMError(f"a map that was kept is damaged ({error}); remove the folder of --cache") from error
