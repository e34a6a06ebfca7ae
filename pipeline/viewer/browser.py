"""All that the pages over images share: what there is to browse, its models, and the table of what was set aside."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from starlette.requests import Request

from pipeline.data.manifest import ManifestRow
from pipeline.metrics.scores import ModelName
from pipeline.params.config import ExtractionParams
from pipeline.params.vocabulary import name_pixel_classes
from pipeline.pseudo_labels.store import PseudoLabelStore, StoredImage
from pipeline.viewer.cache import Cache
from pipeline.viewer.collections import Collection, read_collections
from pipeline.viewer.live_labels import Cut, Prepared, change_rule, cut, describe_run_rule, judge, prepare, run_rule
from pipeline.viewer.model_maps import models_of
from pipeline.viewer.review import ReviewTable
from pipeline.viewer.site import Site, not_found

KEPT: Final = 8  # images whose labels may be cut at once: a slider asks for one of them again and again


@dataclass(frozen=True, eq=False)
class Shown:
    """An image that was asked for: its collection, and its place there."""

    collection: Collection
    place: int

    @property
    def row(self) -> ManifestRow:
        """What the manifest says of it."""
        return self.collection.rows[self.place]

    @property
    def names(self) -> dict[str, str]:
        """The parameters of an address that name it."""
        return {"in": self.collection.key, "image": self.row.image}


class Browser:
    """A run's images; may be used in any thread.

    Attributes:
        collections: by key, in the order of the navigation.
        cache: what is computed once.
        review: what is set aside.
        pixel_classes: what the labels 0, 1, ... are called, background first.

    Raises:
        PixelCAMError: there is nothing to browse, or a table is damaged.
    """

    def __init__(self, site: Site) -> None:
        self._params = site.params
        self.collections: Mapping[str, Collection] = {
            found.key: found for found in read_collections(site.params, site.files)
        }
        self.cache = Cache(site.files.cache)
        self.review = ReviewTable(site.files.review)
        self.review.rows()  # a damaged table is told of now
        self._models = models_of(site.params, site.files.models, self.cache)
        self._store_lock = Lock()
        self._prepared: OrderedDict[tuple[str, str], Prepared] = OrderedDict()

    def collection(self, key: str) -> Collection:
        """Return a collection; raise a 404 for what is none."""
        if key not in self.collections:
            raise not_found("such collection of images")
        return self.collections[key]

    def shown(self, request: Request) -> Shown:
        """Return the image that an address names by `in` and `image`, a collection and an id of its manifest.

        An id is looked up among those that there are, never taken for a path.
        """
        collection = self.collection(request.query_params.get("in", ""))
        place = collection.position.get(request.query_params.get("image", ""))
        if place is None:
            raise not_found("such image")
        return Shown(collection, place)

    def pixel_classes(self, collection: Collection) -> tuple[str, ...]:
        """Return what the labels 0, 1, ... are called, background first."""
        return name_pixel_classes(self._params.model.pixel_classes, collection.domain.classes)

    def cam(self, shown: Shown) -> NDArray[np.floating]:
        """Return the CAM that labels are cut from, floating point (h, w): the store's, or one that is read now."""
        if shown.collection.store is not None:
            return self._stored(shown.collection.store, shown).cam
        return self.map_of(shown, ModelName.TEACHER)

    def map_of(self, shown: Shown, model: ModelName) -> NDArray[np.float32]:
        """Return where a model looks, float32 (h, w) in [0, 1]."""
        return self._models[model].read(shown.collection.domain.manifest, shown.row)

    def rule(self, collection: Collection) -> ExtractionParams:
        """Return how the labels of a collection were cut, or would be."""
        return run_rule(self._params.extract_pseudo_labels, collection.store)

    def describe_rule(self, collection: Collection) -> str:
        """Say the same in words."""
        domain, section = collection.domain, self._params.extract_pseudo_labels
        index = domain.background_class_idx
        background = None if index is None else domain.classes[index]
        return describe_run_rule(section, collection.store, background_class=background)

    def labels(self, shown: Shown, values: Mapping[str, str]) -> Cut:
        """Return an image's labels by the run's rule with other values, and how good they are.

        With the run's own values those of the store are taken, since its CAM is rounded.
        """
        collection, rule = shown.collection, self.rule(shown.collection)
        changed = change_rule(rule, values)
        prepared = self._prepare(shown, rule)
        if collection.store is not None and changed == rule:
            labels = torch.from_numpy(self._stored(collection.store, shown).labels).unsqueeze(0)
        else:
            labels = cut(prepared, changed)
        model = self._params.model
        return judge(labels, prepared, classes=collection.domain.classes, pixel_classes=model.pixel_classes)

    def _stored(self, store: PseudoLabelStore, shown: Shown) -> StoredImage:
        with self._store_lock:
            return store.read(shown.row.image)

    def _prepare(self, shown: Shown, rule: ExtractionParams) -> Prepared:
        key = (shown.collection.key, shown.row.image)
        found = self._prepared.get(key)
        if found is None:
            store, cam = shown.collection.store, self.cam(shown)
            side = self._params.model.input_size
            if store is not None:
                side = self._stored(store, shown).labels.shape[0]
            found = prepare(shown.collection.domain, shown.row, cam, side=side, rule=rule)
            self._prepared[key] = found
            while len(self._prepared) > KEPT:
                self._prepared.popitem(last=False)
        return found
