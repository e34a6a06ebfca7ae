"""Where to compute: the device and its precision, chosen from what the machine has, never from params."""

import ctypes
import sys
from typing import Final

import torch
from lightning_fabric import Fabric

MALLOPT_TRIM_THRESHOLD: Final = -1  # the numbers of glibc's malloc.h
MALLOPT_TOP_PAD: Final = -2
MALLOPT_MMAP_MAX: Final = -4
LARGEST_INT: Final = 2**31 - 1


def make_fabric() -> Fabric:
    """Choose device and precision: an accelerator where there is one, with bfloat16 autocast where it has that."""
    use_bfloat16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    else:
        keep_freed_memory()
    return Fabric(accelerator="auto", devices=1, precision="bf16-mixed" if use_bfloat16 else "32-true")


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
    """Return device and precision in words."""
    device = fabric.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, {fabric.strategy.precision.precision}"
