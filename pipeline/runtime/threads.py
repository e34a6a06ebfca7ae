"""Threads that work beside each other: many items at once, the next batch prefetched, the last one finished behind.

They share a processor's cores without a fight: in each of them torch computes with one core.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import local
from typing import Final, TypeVar

import torch

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


def launch_ahead(launched: Iterable[Item], *, depth: int | None = None) -> Iterator[Item]:
    """Yield items in their order, each once `depth` more of them have been launched.

    An error in launching an item comes in the item's place, behind those that were launched before it.

    Args:
        launched: launches the work for an item when it is asked for it, and does not wait for that work.
        depth: by default one where there is a GPU, else none: a processor that computes itself has no time to spare.
    """
    depth = int(torch.cuda.is_available()) if depth is None else depth
    waiting: deque[Item] = deque()
    try:
        for item in launched:
            waiting.append(item)
            if len(waiting) > depth:
                yield waiting.popleft()
    except Exception:
        yield from waiting
        raise
    yield from waiting


def prefetch(
    batches: Iterable[list[int]], prepare: Callable[[int], Value], *, depth: int | None = None
) -> Iterator[tuple[list[int], list[Value]]]:
    """Yield each batch with what `prepare` makes of its items, all in their order.

    Args:
        batches: items, batch by batch; the next ones are asked for no sooner than they are prepared.
        prepare: is called in any thread. Torch has one core in each.
        depth: how many batches more are under way while one is used; see `launch_ahead`.
    """
    pool = make_pool()
    try:
        launched = ((batch, [pool.submit(prepare, item) for item in batch]) for batch in batches)
        for batch, values in launch_ahead(launched, depth=depth):
            yield batch, [value.result() for value in values]
    finally:
        pool.shutdown(cancel_futures=True)


def finish_in_background(items: Iterable[Item], finish: Callable[[Item], Value], *, depth: int) -> Iterator[Value]:
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
        for value in launch_ahead((pool.submit(finish, item) for item in items), depth=depth):
            yield value.result()
    finally:
        pool.shutdown(cancel_futures=True)
