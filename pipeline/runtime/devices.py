"""Where to compute, and compiled or not: device and precision, chosen from what the machine has, never from params.

Under torchrun that is one device per process, on any number of machines.
"""

import ctypes
import logging
import os
import sys
from typing import Any, Final, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from pipeline.params.errors import PixelCAMError
from pipeline.runtime.console import say
from pipeline.runtime.portable import check_portable, is_portable
from pipeline.runtime.processes import PATIENCE, count, count_here

MALLOPT_TRIM_THRESHOLD: Final = -1  # the numbers of glibc's malloc.h
MALLOPT_TOP_PAD: Final = -2
MALLOPT_MMAP_MAX: Final = -4
LARGEST_INT: Final = 2**31 - 1

Precision = Literal["32-true", "bf16-mixed"]
PRECISIONS: Final[dict[str, Precision]] = {"32-true": "32-true", "bf16-mixed": "bf16-mixed"}
PRECISION: Final = "PIXELCAM_PRECISION"  # a setting of the machine


def make_fabric() -> Fabric:
    """Choose device and precision: an accelerator where there is one, with bfloat16 autocast where it has that.

    The variable PIXELCAM_PRECISION asks for another precision. Under torchrun the processes meet here.

    Raises:
        PixelCAMError: the precision is unknown, this machine has fewer GPUs than processes, or portable bytes are asked
            for where none can be had.
    """
    check_portable(torch.backends.cpu.get_cpu_capability())
    use_bfloat16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    else:
        keep_freed_memory()
    precision = _asked_precision() or ("bf16-mixed" if use_bfloat16 else "32-true")
    if count() == 1:
        return Fabric(accelerator="auto", devices=1, precision=precision)
    return _join(precision)


def _join(precision: Precision) -> Fabric:
    """Meet the other processes, each with a device of its own."""
    here, machines = count_here()
    with_gpus = torch.cuda.is_available()
    if with_gpus and here > torch.cuda.device_count():
        raise PixelCAMError(
            f"{here} processes on this machine need as many GPUs, and it has {torch.cuda.device_count()}; start "
            "fewer (PIXELCAM_PROCESSES, or --nproc-per-node of torchrun), or hide the GPUs: CUDA_VISIBLE_DEVICES="
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # A static graph may leave out weights, such as those that no feature map of an encoder depends on.
    strategy = DDPStrategy(static_graph=True, forward_sync_buffers=False, timeout=PATIENCE)
    accelerator = "cuda" if with_gpus else "cpu"
    fabric = Fabric(accelerator=accelerator, devices=here, num_nodes=machines, strategy=strategy, precision=precision)
    fabric.launch()
    return fabric


def _asked_precision() -> Precision | None:
    value = os.environ.get(PRECISION)
    if value is None:
        return None
    if value not in PRECISIONS:
        raise PixelCAMError(f"{PRECISION}: must be one of {', '.join(PRECISIONS)}, got '{value}'; mend it or unset it")
    return PRECISIONS[value]


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step, where it is the C library; elsewhere do nothing.

    By default it gives every large block back at once, and asking for it again costs about a fifth of a training step
    on a CPU.
    """
    libc = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(libc, "mallopt"):
        libc.mallopt(MALLOPT_MMAP_MAX, 0)
        libc.mallopt(MALLOPT_TRIM_THRESHOLD, LARGEST_INT)
        libc.mallopt(MALLOPT_TOP_PAD, 2**28)


def describe_device(fabric: Fabric) -> str:
    """Return device and precision in words, with all that rounding depends on.

    That is a CPU's number of threads, which add up in an order of their own, whether its instructions are those of
    all machines, and the number of processes if several.
    """
    device = fabric.device
    threads = f"{device.type}, threads: {torch.get_num_threads()}" + (", portable" if is_portable() else "")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else threads
    together = f", {count()} processes" if count() > 1 else ""
    return f"{name}, {fabric.strategy.precision.precision}{together}"


class CompiledModel(nn.Module):
    """Run a model as `torch.compile` makes it; where that cannot be, say so once and run the model as it is.

    It is compiled when it is first called, for which torch needs a C++ compiler or, on a GPU, Triton.

    Args:
        model: what to compile; its weights stay its own.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._run = torch.compile(model.forward)

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the model takes and gives
        """Return what the model returns."""
        if self._run == self.model.forward:
            return self.model(*args, **kwargs)
        try:
            return self._run(*args, **kwargs)
        except Exception as error:  # compilers fail in many ways; what is the model's own fault it shows again below
            self._run = self.model.forward
            reason = str(error).strip().partition("\n")[0]
            say(f"compile: torch.compile failed ({type(error).__name__}: {reason}); training goes on without it")
            return self.model(*args, **kwargs)


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
