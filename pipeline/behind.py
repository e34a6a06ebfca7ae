"""Finish items in a thread behind the one that makes them: a GPU has the next while a processor ends the last."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from pipeline.threads import make_pool

Item = TypeVar("Item")
Value = TypeVar("Value")


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
