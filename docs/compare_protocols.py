"""Score awkward maps on this project's terms and on the published evaluator's: python docs/compare_protocols.py.

It writes the table into docs/evaluation.md, between the two lines that say so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.map_scores import score_maps
from pipeline.metrics.protocols import ScoreProtocol

PAGE: Final = Path(__file__).with_name("evaluation.md")
BEGIN: Final = "<!-- written by docs/compare_protocols.py -->"
END: Final = "<!-- end of what it writes -->"
TITLE: Final = (
    "| maps | `pixelcam` | published, 1,000 steps | 100 steps | stretched | boxes | boxes, published | why |\n"
    "|---|---|---|---|---|---|---|---|"
)

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Maps with their masks, and why protocols agree on them or not; `ignore` is for all of them."""

    name: str
    why: str
    maps: list[Floats]
    masks: list[Bools]
    ignore: Bools | None = None


def cases() -> Iterator[Case]:
    """Yield the rows of the table in their order."""
    yield from _tied()
    yield from _saying_nothing()
    yield from _of_few_pixels()
    yield from _at_unlike_scales()
    yield from _told_apart_otherwise()


def _square(*, inside: float, outside: float, first: int = 2, last: int = 6) -> Floats:
    heat = np.full((8, 8), outside, dtype=np.float64)
    heat[first:last, first:last] = inside
    return heat


SQUARE: Final = _square(inside=1, outside=0) > 0
HILL: Final = np.exp(-((np.indices((8, 8)) - 3.5) ** 2).sum(axis=0) / 12)


def _tied() -> Iterator[Case]:
    sloping = (HILL - HILL.min()) / np.ptp(HILL)
    masks = [SQUARE]
    yield Case(name="a hill from 0 to 1", why="nothing lies on a threshold", maps=[sloping], masks=masks)
    yield Case(
        name="0.7 on 0.6995, float32",
        why="as float32 0.7 is below 7/10, and the published edge is a float64: a tie. Ours compares both as float32. "
        "For boxes 8 bits make it one",
        maps=[_square(inside=0.7, outside=0.6995).astype(np.float32)],
        masks=masks,
    )
    yield Case(
        name="0.009 on 0.0085, float64",
        why="the published edge is 9 × 0.001, a last bit above 0.009; 144 of 1,000 edges are like that, 10 of 100",
        maps=[_square(inside=0.009, outside=0.0085)],
        masks=masks,
    )
    noise = np.random.default_rng(0).random((64, 64))
    truth = noise + np.random.default_rng(1).random((64, 64)) > 1.2
    yield Case(
        name="noise in steps of 0.001, float32",
        why="of the 1,000 such values 489 lie a bit below their edge, so a bin lower: what that changes in all",
        maps=[np.round(noise, 3).astype(np.float32)],
        masks=[truth],
    )


def _saying_nothing() -> Iterator[Case]:
    zeros = np.zeros((8, 8))
    yield Case(
        name="0.5 everywhere",
        why="the share of foreground; one box of all, which is 64 pixels on 16",
        maps=[zeros + 0.5],
        masks=[SQUARE],
    )
    yield Case(
        name="0 everywhere, half of it foreground",
        why="ours: at 0 everything is foreground, one box; published: nothing is higher, so the box of the first pixel",
        maps=[zeros],
        masks=[np.arange(64).reshape(8, 8) < 32],
    )
    yield Case(
        name="zeros and ones",
        why="PxAP the same; a published box is a pixel wider and lower: 25 pixels on 16, IoU 0.64",
        maps=[SQUARE * 1.0],
        masks=[SQUARE],
    )
    yield Case(
        name="all foreground",
        why="no pixel can be wrong; a published box of the whole map is cut at its edge",
        maps=[HILL],
        masks=[np.ones((8, 8), dtype=np.bool_)],
    )


def _of_few_pixels() -> Iterator[Case]:
    dot = _square(inside=1, outside=0, first=3, last=4)
    yield Case(
        name="a foreground of one pixel",
        why="the published box of it has four: IoU 0.25, never right",
        maps=[dot],
        masks=[dot > 0],
    )
    yield Case(
        name="an image of one pixel",
        why="stretched it is 0, the area stays; its box cannot grow",
        maps=[np.array([[0.5]])],
        masks=[np.array([[True]])],
    )


def _at_unlike_scales() -> Iterator[Case]:
    faint = HILL * 0.004
    yield Case(
        name="a hill up to 0.004",
        why="in 1,000 steps five bins, in 100 one; for boxes 8 bits leave two levels",
        maps=[faint],
        masks=[SQUARE],
    )
    yield Case(
        name="that, and a plain without foreground at 0.3",
        why="as they are all of the plain ranks first; stretched, a constant map is 0 and ranks last",
        maps=[faint, np.full((8, 8), 0.3)],
        masks=[SQUARE, np.zeros((8, 8), dtype=np.bool_)],
    )


def _told_apart_otherwise() -> Iterator[Case]:
    yield Case(
        name="a part of the foreground ignored",
        why="ours: it counts nowhere; published: foreground counts, whatever ignores it",
        maps=[np.roll(HILL, 2, axis=1)],
        masks=[SQUARE],
        ignore=np.arange(64).reshape(8, 8) < 32,
    )
    large = np.zeros((16, 16), dtype=np.bool_)
    large[5:12, 5:12] = True
    yield Case(
        name="a mask twice as large as its map",
        why="ours: the map is enlarged; published: the mask is reduced, by the pixel at the upper left",
        maps=[HILL],
        masks=[large],
    )
    yield Case(
        name="ones with a hole of 4 pixels",
        why="a hole has a published box too, that of the pixels around it: 25 on 16",
        maps=[1 - _square(inside=1, outside=0, first=3, last=5)],
        masks=[SQUARE],
    )


def figures(case: Case) -> list[float]:
    """Return PxAP on our terms, as published in 1,000 steps, in 100 and stretched, and MaxBoxAccV2, ours and theirs."""
    ours, published = _scores(case, ScoreProtocol.PIXELCAM), _scores(case, ScoreProtocol.WSOLEVALUATION)
    coarse = _scores(case, ScoreProtocol.WSOLEVALUATION, steps=100)
    stretched = _scores(case, ScoreProtocol.WSOLEVALUATION_STRETCHED)
    boxes = [found["boxes"]["max_box_acc_v2"] for found in (ours, published)]
    return [*(found["pxap"] for found in (ours, published, coarse, stretched)), *boxes]


def _scores(case: Case, protocol: ScoreProtocol, *, steps: int | None = None) -> dict[str, Any]:
    ignore = None if case.ignore is None else [case.ignore] * len(case.maps)
    return score_maps(preds=case.maps, target=case.masks, ignore=ignore, protocol=protocol, steps=steps)


def table() -> str:
    """Return the table as Markdown."""
    rows = []
    for case in cases():
        ours, *theirs, boxes, their_boxes = figures(case)
        shown = [f"{ours:.4f}", *(_beside(ours, value) for value in theirs), f"{boxes:.2f}", f"{their_boxes:.2f}"]
        rows.append(f"| {case.name} | {' | '.join(shown)} | {case.why} |")
    return "\n".join([TITLE, *rows])


def _beside(ours: float, theirs: float) -> str:
    """Return a figure and, where one is to be seen, its difference from ours."""
    difference = f"{theirs - ours:+.4f}"
    return f"{theirs:.4f}" if float(difference) == 0 else f"{theirs:.4f} ({difference})"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")
