"""Which images of a collection a page shows, and in which order: what was asked for in its address."""

from collections.abc import Collection as Names
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from pipeline.viewer.collections import DISAGREEMENT, FOREGROUND_SHARE, RIGHT, WRONG, Collection

PER_PAGE: Final = 60
SET_ASIDE, NOT_SET_ASIDE = "set_aside", "not_set_aside"
NAME: Final = "name"
ORDERS: Final[Mapping[str, tuple[str, str, int]]] = {  # title, column, and 1 for the lowest first or -1
    "pixelcam_dice": ("worst Dice of PixelCAM", "pixelcam_dice", 1),
    "pixelcam_dice_best": ("best Dice of PixelCAM", "pixelcam_dice", -1),
    "teacher_dice": ("worst Dice of the teacher", "teacher_dice", 1),
    "teacher_dice_best": ("best Dice of the teacher", "teacher_dice", -1),
    "pixelcam_confidence": ("PixelCAM least confident", "pixelcam_confidence", 1),
    "teacher_confidence": ("teacher least confident", "teacher_confidence", 1),
    "disagreement": ("models disagree most", DISAGREEMENT, -1),
    "foreground_most": ("most foreground", FOREGROUND_SHARE, -1),
    "foreground_least": ("least foreground", FOREGROUND_SHARE, 1),
}


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked for; what no collection knows asks for everything.

    Attributes:
        label: the images' class; empty for all.
        judged: `right` or `wrong`, by PixelCAM; empty for all.
        verdict: `set_aside`, `not_set_aside`, or one verdict; empty for all.
        order: `name`, or one of `ORDERS`.
        find: a part of the name, whatever its case.
        page: from 1 on.
    """

    label: str = ""
    judged: str = ""
    verdict: str = ""
    order: str = NAME
    find: str = ""
    page: int = 1

    @classmethod
    def read(cls, values: Mapping[str, str]) -> "Query":
        """Return what the parameters of an address ask for."""
        texts = {name: values[name] for name in ("label", "judged", "verdict", "order", "find") if values.get(name)}
        page = values.get("page", "1")
        return cls(**texts, page=max(1, int(page)) if page.isdecimal() and len(page) < 10 else 1)

    def parameters(self, **more: str) -> str:
        """Return the parameters of an address that asks for this, and for more; empty, or from the ? on."""
        own = {name: value for name, value in asdict(self).items() if value != getattr(_EVERYTHING, name)}
        return f"?{urlencode(own | more)}" if own or more else ""

    def of_page(self, page: int) -> "Query":
        """Return the same of another page."""
        return replace(self, page=page)


_EVERYTHING: Final = Query()


def orders_of(collection: Collection) -> dict[str, str]:
    """Return the orders that a collection has values for, by name, with what each is called."""
    known = {key: title for key, (title, column, _) in ORDERS.items() if column in collection.numbers}
    return {NAME: "name"} | known


def select(
    collection: Collection, query: Query, verdicts: Mapping[str, str], *, always: int | None = None
) -> NDArray[np.int64]:
    """Return the places, among a collection's rows, of the images that are asked for, in their order.

    Args:
        collection: the images.
        query: what is asked for.
        verdicts: by image, of those that are set aside.
        always: the place of an image that stays among them, whatever it is like: the one that is looked at.
    """
    order = _ordered(collection, query.order)
    fits = _fits(collection, query, verdicts)
    if always is not None:
        fits[always] = True
    return order[fits[order]]


def _ordered(collection: Collection, order: str) -> NDArray[np.int64]:
    """Return all places in an order; images without the value come last, and equal ones by name."""
    by_name = collection.by_name
    if order not in ORDERS or ORDERS[order][1] not in collection.numbers:
        return by_name
    _, column, sign = ORDERS[order]
    return by_name[np.argsort(sign * collection.numbers[column][by_name], kind="stable")]  # NaN sorts last


def _fits(collection: Collection, query: Query, verdicts: Mapping[str, str]) -> NDArray[np.bool_]:
    fits = np.ones(len(collection), dtype=np.bool_)
    if query.label in collection.domain.classes:
        fits &= collection.class_idx == collection.domain.classes.index(query.label)
    if query.judged in (RIGHT, WRONG) and collection.judged is not None:
        fits &= collection.judged == query.judged
    if query.verdict:
        aside = _places(collection, [image for image, said in verdicts.items() if _is_asked(said, query.verdict)])
        fits &= ~aside if query.verdict == NOT_SET_ASIDE else aside
    if query.find:
        wanted = query.find.casefold()
        fits &= np.array([wanted in row.image.casefold() for row in collection.rows], dtype=np.bool_)
    return fits


def _is_asked(verdict: str, asked: str) -> bool:
    return asked in (SET_ASIDE, NOT_SET_ASIDE, verdict)


def _places(collection: Collection, images: Names[str]) -> NDArray[np.bool_]:
    """Return where images stand, bool over the rows."""
    where = np.zeros(len(collection), dtype=np.bool_)
    where[[collection.position[image] for image in images if image in collection.position]] = True
    return where
