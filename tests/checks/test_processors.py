"""Other processors, imitated: what a library asks is answered as their makers say, and nothing else is touched."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checks.processors.known import PROCESSORS
from checks.processors.leaves import answers_of, written
from checks.processors.patching import ANSWERS_SOURCE, patch_libraries

can_imitate = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64")
    or not shutil.which("gcc")
    or not shutil.which("objdump"),
    reason="needs Linux on x86-64, gcc and objdump",
)

ASKING = """
#include <cpuid.h>
void ask(unsigned leaf, unsigned subleaf, unsigned *answer)
{
    __cpuid_count(leaf, subleaf, answer[0], answer[1], answer[2], answer[3]);
}
unsigned number(void) { return 0xa20f; } /* the bytes of CPUID, and none */
"""
CALLING = """
import ctypes, json, sys
library = ctypes.CDLL(sys.argv[1])
answer = (ctypes.c_uint * 4)()
answers = []
for leaf, subleaf in [(0, 0), (4, 2), (7, 0), (0x99, 0)]:
    library.ask(leaf, subleaf, answer)
    answers.append(list(answer))
print(json.dumps([library.number(), *answers]))
"""


def compile_library(source: Path, library: Path) -> None:
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)


@can_imitate
def test_a_library_that_asks_is_answered_for_another_processor(tmp_path: Path) -> None:
    source, answers, table, libraries = (tmp_path / name for name in ("asking.c", "answers.so", "table", "libraries"))
    libraries.mkdir()
    library, linked = libraries / "asking.so", tmp_path / "linked"
    source.write_text(ASKING, encoding="utf-8")
    compile_library(source, library)
    compile_library(ANSWERS_SOURCE, answers)
    table.write_text(written(answers_of(PROCESSORS["haswell"])), encoding="utf-8")
    os.link(library, linked)
    before = linked.read_bytes()

    assert patch_libraries(libraries) == 1
    assert linked.read_bytes() == before, "a file of this content was changed elsewhere too"
    told = subprocess.run(
        [sys.executable, "-c", CALLING, str(library)],
        env=os.environ | {"LD_PRELOAD": str(answers), "PROCESSOR_ANSWERS": str(table)},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    number, vendor, second_level, features, unlisted = json.loads(told)

    assert number == 0xA20F
    assert vendor[1:] == [0x756E6547, 0x6C65746E, 0x49656E69]  # Genu, ntel, ineI
    assert second_level == [0x2C004143, 0x01C0003F, 511, 0]  # 256 KiB, 8 ways, 64 bytes a line, 512 sets
    assert [features[1] >> bit & 1 for bit in (5, 16)] == [1, 0]  # AVX2, no AVX-512
    assert unlisted == [0, 0, 0, 0]


@pytest.mark.parametrize(("name", "has_avx512"), [("haswell", 0), ("rome", 0), ("skylake", 1), ("icelake", 1)])
def test_a_processor_has_the_instructions_of_its_kind(name: str, has_avx512: int) -> None:
    answers = {leaf[:2]: leaf[2:] for leaf in answers_of(PROCESSORS[name])}
    assert [answers[7, 0][1] >> bit & 1 for bit in (5, 16, 17, 28, 30, 31)] == [1, *[has_avx512] * 5]
    assert [answers[1, 0][2] >> bit & 1 for bit in (12, 27, 28)] == [1, 1, 1]  # FMA, states kept by the system, AVX


def test_caches_of_amd_stand_where_amd_has_them() -> None:
    answers = {leaf[:2]: leaf[2:] for leaf in answers_of(PROCESSORS["rome"])}
    assert answers[0, 0][1:] == (0x68747541, 0x444D4163, 0x69746E65)  # Auth, cAMD, enti
    assert answers[0x80000006, 0][2] >> 16 == 512  # KiB of the second level
    assert [answers[0x8000001D, at][0] >> 5 & 7 for at in range(4)] == [1, 1, 2, 3]
    assert answers[0x8000001D, 3][2] + 1 == 16384  # sets of the third level: 16 MiB, 16 ways, 64 bytes
    assert (4, 0) not in answers
