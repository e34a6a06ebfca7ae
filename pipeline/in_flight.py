"""Keep a GPU at work on the next batch while the processor deals with what came of the one before."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


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
