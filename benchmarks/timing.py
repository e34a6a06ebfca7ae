"""Measure two works side by side: in turns, so that whatever else the machine does meets both."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of both works, one entry per round."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Return ours over theirs, round by round."""
        return tuple(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """Return the median over rounds of ours over theirs."""
        return median(self.ratios)


def side_by_side(ours: Work, theirs: Work, *, rounds: int, device: torch.device, warm_up: bool = True) -> Times:
    """Time both works in each round, the one first in even rounds and the other in odd ones, after one go of each."""
    if warm_up:
        seconds_of(ours, device)
        seconds_of(theirs, device)
    taken: dict[Work, list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        for work in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            taken[work].append(seconds_of(work, device))
    return Times(tuple(taken[ours]), tuple(taken[theirs]))


def seconds_of(work: Work, device: torch.device) -> float:
    """Return how long a work takes, until the device has done all of it."""
    wait_for(device)
    start = perf_counter()
    work()
    wait_for(device)
    return perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
