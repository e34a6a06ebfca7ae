"""Portable bytes: what computes is settled before it is loaded, and where that cannot be it is said."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from pipeline.params.errors import PixelCAMError
from pipeline.runtime import portable
from pipeline.runtime.devices import describe_device
from pipeline.runtime.portable import SETTINGS, check_portable, use_portable_arithmetic

HAS_AVX2 = platform.system() == "Linux" and "avx2" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
LOADED = """
import pipeline, numpy, torch
from numpy._core._multiarray_umath import __cpu_features__ as features
from pipeline.runtime.devices import make_fabric
make_fabric()
print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), features["X86_V4"], torch.cuda.is_available())
"""


@pytest.mark.skipif(not HAS_AVX2, reason="no AVX2")
def test_what_is_loaded_afterwards_computes_as_everywhere_whatever_the_shell_says() -> None:
    shell = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "X86_V3"}
    program = [sys.executable, "-W", "error::UserWarning", "-c", LOADED]
    found = subprocess.run(
        program, env={**os.environ, **shell, "PIXELCAM_PORTABLE": "1"}, capture_output=True, text=True, check=False
    )
    assert found.stdout.split() == ["AVX2", "2", "False", "False"], found.stderr


@pytest.mark.parametrize("value", [None, "0"])
def test_nothing_is_settled_where_nobody_asks(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIXELCAM_PORTABLE", raising=False)
    if value is not None:
        monkeypatch.setenv("PIXELCAM_PORTABLE", value)
    before = {name: os.environ.get(name) for name in SETTINGS}
    use_portable_arithmetic()
    check_portable("AVX512")
    assert {name: os.environ.get(name) for name in SETTINGS} == before


@pytest.mark.parametrize(
    ("value", "machine", "flags", "capability", "said"),
    [
        ("yes", "x86_64", "fma avx2", "AVX2", "must be 0 or 1, got 'yes'"),
        ("1", "aarch64", "fma avx2", "DEFAULT", "need Linux on an x86-64 processor with AVX2; unset PIXELCAM_PORTABLE"),
        ("1", "x86_64", "fma avx", "DEFAULT", "need Linux on an x86-64 processor with AVX2; unset PIXELCAM_PORTABLE"),
        ("1", "x86_64", "fma avx2", "AVX512", "torch was loaded before it was told how to compute"),
    ],
)
def test_other_bytes_are_not_given_for_portable_ones(
    value: str, machine: str, flags: str, capability: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse2\n", encoding="utf-8")
    monkeypatch.setattr(portable, "CPUS", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setenv("PIXELCAM_PORTABLE", value)
    with pytest.raises(PixelCAMError, match=f"PIXELCAM_PORTABLE: .*{said}"):
        check_portable(capability)


def test_a_model_says_that_its_bytes_are_portable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELCAM_PORTABLE", "1")
    said = describe_device(Fabric(accelerator="cpu"))
    assert said == f"cpu, threads: {torch.get_num_threads()}, portable, 32-true"
