"""Threads that work beside each other: many items at once, the next batch ahead, the last one behind.

They share a processor's cores without a fight: in each of them torch computes with one core.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from threading import local
from typing import Final, TypeVar

import torch
from torch import Tensor

from pipeline.runtime.processes import count_here

WORKERS: Final = min(16, max(1, (os.cpu_count() or 1) // count_here()[0]))  # of every process on this machine


def make_pool(workers: int = WORKERS) -> ThreadPoolExecutor:
    """Make a pool of threads, by default one per core, which the caller shuts down.

    Torch would otherwise start threads of its own in each of them. The thread that calls this keeps all its own.
    """
    torch.get_num_threads()  # settled for this thread by asking; else the threads below would settle it
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))


Item = TypeVar("Item")
Value = TypeVar("Value")

_IN_A_THREAD: Final = local()


def in_threads(work: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
    """Return what `work` makes of each item, in their order; the first error among them is raised.

    A work may itself call this: it then stays in its thread. A single item stays in the caller's.
    """
    waiting = list(items)
    if len(waiting) < 2 or getattr(_IN_A_THREAD, "yes", False):
        return [work(item) for item in waiting]

    def marked(item: Item) -> Value:
        _IN_A_THREAD.yes = True
        return work(item)

    return list(_pool(os.getpid()).map(marked, waiting))


@cache
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a process that was forked off has none of the threads
    return make_pool()


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


def finished_behind(items: Iterable[Item], finish: Callable[[Item], Value], *, depth: int) -> Iterator[Value]:
    """Yield what `finish` makes of each item, in their order, one at a time.

    An error in making an item or in finishing it comes out in the item's place, and nothing after it.

    Args:
        items: are made in the thread that asks for the values.
        finish: is called in one other thread, in which torch has one core.
        depth: how many items more are made while one is finished; with 0 no thread is started.
    """
    if depth == 0:
        yield from map(finish, items)
        return
    pool = make_pool(1)
    try:
        under_way: deque[Future[Value]] = deque()
        for future in _submitted(items, lambda item: pool.submit(finish, item)):
            under_way.append(future)
            if len(under_way) > depth:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(items: Iterable[Item], submit: Callable[[Item], Future[Value]]) -> Iterator[Future[Value]]:
    """Yield a future for each item; one that could not be made is the last, and its future raises the error."""
    making = iter(items)
    while True:
        try:
            item = next(making)
        except StopIteration:
            return
        except Exception as error:  # raised in its turn
            failed: Future[Value] = Future()
            failed.set_exception(error)
            yield failed
            return
        yield submit(item)


def in_flight(launched: Iterable[Item], *, depth: int | None = None) -> Iterator[Item]:
    """Yield items in their order, each once `depth` more of them have been launched.

    Args:
        launched: launches the work for an item when it is asked for it, and does not wait for that work.
        depth: by default one where there is a GPU, else none: a processor does the work at once.
    """
    depth = int(torch.cuda.is_available()) if depth is None else depth
    waiting: deque[Item] = deque()
    for item in launched:
        waiting.append(item)
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; where that is a GPU, without waiting for what it was given to do before."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Fetched:
    """Tensors on their way from one device into main memory, right behind what computes them."""

    def __init__(self, *tensors: Tensor) -> None:
        device = tensors[0].device
        on_gpu = device.type == "cuda"
        self._tensors = tuple(tensor.to("cpu", non_blocking=on_gpu) for tensor in tensors)
        # Not the whole queue of the GPU must be empty, but that which stood in it at this moment.
        self._copied = torch.cuda.current_stream(device).record_event() if on_gpu else None

    def wait(self) -> tuple[Tensor, ...]:
        """Return them when they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._tensors
