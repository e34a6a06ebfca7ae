"""Portable bytes: with PIXELCAM_PORTABLE=1 the same arithmetic on every x86-64 Linux machine, not the fastest of each.

Libraries choose their instructions when they are loaded, by what a processor offers, and so add up in an order of its
own. Here they are told to use those of AVX2, which every such processor has had for a decade, and two threads, however
many there are; so this is called before any of them is imported, and imports none.
"""

import os
import platform
from pathlib import Path
from typing import Final

from pipeline.params.errors import PixelCAMError

PORTABLE: Final = "PIXELCAM_PORTABLE"  # 1 or 0; a setting of the machine
INSTRUCTIONS: Final = {"avx2", "fma"}
CPUS: Final = Path("/proc/cpuinfo")

SETTINGS: Final = {
    "CUDA_VISIBLE_DEVICES": "",
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "MKL_CBWR": "COMPATIBLE",  # matrix products; the only branch that is the same on Intel's and others' processors
    "MKL_DYNAMIC": "FALSE",
    "MKL_NUM_THREADS": "2",
    "OMP_NUM_THREADS": "2",
    "OMP_DYNAMIC": "FALSE",
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's and SciPy's matrix products
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # what NumPy has beyond AVX2
}


def is_portable() -> bool:
    """Tell whether portable bytes are asked for."""
    return os.environ.get(PORTABLE, "0") != "0"


def use_portable_arithmetic() -> None:
    """Have the libraries that are imported from now on compute alike everywhere, if asked to; else do nothing.

    Whoever set one of the variables is overruled: the bytes depend on all of them.
    """
    if is_portable():
        os.environ.update(SETTINGS)


def check_portable(capability: str) -> None:
    """Refuse to give bytes for portable that are not; do nothing where none are asked for.

    Args:
        capability: the instructions that torch uses, in its own words.

    Raises:
        PixelCAMError: the variable is neither 0 nor 1, this is no x86-64 Linux with AVX2, or torch was loaded before.
    """
    if not is_portable():
        return
    remedy = f"unset {PORTABLE} to compute in this machine's own way"
    if os.environ[PORTABLE] != "1":
        raise PixelCAMError(f"{PORTABLE}: must be 0 or 1, got '{os.environ[PORTABLE]}'; mend it or unset it")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or not _has_instructions():
        raise PixelCAMError(f"{PORTABLE}: portable bytes need Linux on an x86-64 processor with AVX2; {remedy}")
    if capability != "AVX2":
        raise PixelCAMError(
            f"{PORTABLE}: torch was loaded before it was told how to compute ({capability}); set the variable before "
            f"Python starts, or import pipeline before torch; or {remedy}"
        )


def _has_instructions() -> bool:
    flags = next((line for line in CPUS.read_text(encoding="utf-8").splitlines() if line.startswith("flags")), "")
    return set(flags.split()) >= INSTRUCTIONS
