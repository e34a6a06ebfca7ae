"""Work on many things at once in threads that last as long as the process, for many small works one after the other."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import local
from typing import Final, TypeVar

from pipeline.threads import make_pool

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
