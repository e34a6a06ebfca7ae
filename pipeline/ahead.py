"""Prepare the items of batches in threads, and where a GPU computes meanwhile, those of the next batch too."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import torch

from pipeline.threads import make_pool

Value = TypeVar("Value")


def prepared(
    batches: Iterable[list[int]], prepare: Callable[[int], Value], *, ahead: int | None = None
) -> Iterator[tuple[list[int], list[Value]]]:
    """Yield each batch with what `prepare` makes of its items, all in their order.

    Args:
        batches: items, batch by batch; the next ones are asked for no sooner than they are prepared.
        prepare: is called in any thread. Torch has one core in each.
        ahead: how many batches more are under way while one is used. By default one where there is a GPU, else none:
            a processor that computes itself has no time to spare.
    """
    ahead = int(torch.cuda.is_available()) if ahead is None else ahead
    pool = make_pool()
    try:
        under_way: deque[tuple[list[int], list[Future[Value]]]] = deque()
        for batch in batches:
            under_way.append((batch, [pool.submit(prepare, item) for item in batch]))
            if len(under_way) > ahead:
                yield _finished(*under_way.popleft())
        while under_way:
            yield _finished(*under_way.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(batch: list[int], values: list[Future[Value]]) -> tuple[list[int], list[Value]]:
    return batch, [value.result() for value in values]
