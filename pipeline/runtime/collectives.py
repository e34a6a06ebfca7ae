"""What processes that work on one thing together exchange: shares of batches, sums over them, results in their order.

Where there is one process, each of these gives back what it was given, unchanged. Every process must call them alike
and in the same order.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from pipeline.runtime.processes import PATIENCE, count, is_first, rank

Item = TypeVar("Item")
Rows = TypeVar("Rows", list[int], Tensor)


def own_share(items: Rows) -> Rows:
    """Return the items of a batch that this process takes: as many as every other, in their order."""
    size = len(items) // count()
    return items[rank() * size : (rank() + 1) * size]


def rand_rows(rows: int, *shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw uniform numbers (rows, *shape) for the rows of this process's share, the same as one process would.

    Every process draws those of the whole batch, from generators in the same state, and keeps its own.
    """
    everyones = torch.rand(count() * rows, *shape, generator=generator, device=generator.device, dtype=dtype)
    return everyones[rank() * rows : (rank() + 1) * rows]


def gather_rows(values: Tensor) -> Tensor:
    """Return the rows of all processes' shares, equally many of each, in the order of the batch; without gradient."""
    if count() == 1:
        return values
    parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(count())]
    distributed.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


def average(values: Tensor) -> Tensor:
    """Return the mean over processes of a tensor; without gradient."""
    if count() == 1:
        return values
    averaged = values.detach().clone()
    distributed.all_reduce(averaged)
    return averaged / count()


def joint_mean(mean: Tensor) -> Tensor:
    """Return the mean over the whole batch of what each process has the mean of, over equally many.

    Its gradient is that of the process's own mean: the gradients are averaged over processes later.
    """
    return mean if count() == 1 else mean + (average(mean) - mean.detach())


def part_of_mean(mean: Tensor, *, over: Tensor) -> Tensor:
    """Scale a mean over a process's own values so that the average over processes is the mean over all their values.

    Args:
        mean: scalar; 0 where there are no values.
        over: int scalar, how many values it is the mean of; each process has a number of its own.
    """
    if count() == 1:
        return mean
    share = over.to(mean.dtype)
    return mean * (share / average(share).clamp_min(1 / count()))


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of the first process."""
    if count() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if count() > 1:
        distributed.barrier(group=_cpu_group())


def from_first(compute: Callable[[], Item]) -> Item:
    """Compute something in the first process alone and return it in all."""
    if count() == 1:
        return compute()
    box: list[Any] = [compute() if is_first() else None]
    distributed.broadcast_object_list(box, src=0, group=_cpu_group())
    found: Item = box[0]
    return found


def interleaved(items: Sequence[Item]) -> list[Item]:
    """Return the items of all processes in every one, given that each has every `count()`-th of them, in order."""
    if count() == 1:
        return list(items)
    everyones: list[Any] = [None] * count()
    distributed.all_gather_object(everyones, list(items), group=_cpu_group())
    longest = max(len(own) for own in everyones)
    return [own[index] for index in range(longest) for own in everyones if index < len(own)]


def in_order(items: Iterable[Item]) -> Iterator[Item]:
    """Yield, in the first process, the items of all as `interleaved` does, as they come; in the others nothing.

    The others, too, must go through to the end. No process is ever more than one item ahead.
    """
    if count() == 1:
        yield from items
        return
    own = iter(items)
    while True:
        taken = list(islice(own, 1))  # none at the end
        there_is_more = torch.tensor(len(taken))
        distributed.all_reduce(there_is_more, op=distributed.ReduceOp.MAX, group=_cpu_group())
        if not there_is_more:
            return
        everyones: list[Any] | None = [None] * count() if is_first() else None
        distributed.gather_object(taken, everyones, dst=0, group=_cpu_group())
        for one in everyones or ():
            yield from one


@cache
def _cpu_group() -> Any:  # noqa: ANN401 - torch does not name its type
    """Return a group of all processes that exchanges what lies in main memory; None is torch's own, where it does."""
    return None if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo", timeout=PATIENCE)
