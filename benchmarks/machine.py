"""The machine that figures were measured on, in words and numbers."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from lightning_fabric import Fabric

from pipeline.runtime.devices import describe_device

PACKAGES: Final = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "zarr",
    "numcodecs",
    "pillow",
    "torchcam",
    "grad-cam",
    "dvc",
)


def describe_machine(fabric: Fabric) -> dict[str, Any]:
    """Return processor, memory, versions, threads, device, load and date."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "device": describe_device(fabric),
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "load_average_before": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _processor() -> str:
    """Return the processor's name, as Linux knows it or else as Python does."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
