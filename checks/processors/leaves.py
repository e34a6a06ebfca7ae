"""A processor as the table of what CPUID answers.

Source: Intel's Software Developer's Manual, volume 2A, CPUID; AMD's Programmer's Manual, volume 3, appendix E.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

from checks.processors.known import Processor

Leaf: TypeAlias = tuple[int, ...]  # leaf, subleaf, eax, ebx, ecx, edx

LINE: Final = 64  # bytes
THREADS: Final = 2  # of a core
HOLDS: Final = {"data": 1, "code": 2, "both": 3}
WAYS: Final = {8: 6, 16: 8, 20: 8}  # in leaf 80000006, which has no number for 20

# Bits of what every processor with AVX2 has, in the order of their leaves.
BASE_1_EDX: Final = (*range(10), *range(11, 18), 19, 23, 24, 25, 26, 28)  # to SSE2, and threads
BASE_1_ECX: Final = (0, 1, 9, 12, 13, 17, 19, 20, 21, 22, 23, 25, 26, 27, 28, 29, 30)  # SSE3 to AVX, FMA, F16C
BASE_7_EBX: Final = (0, 3, 5, 7, 8, 9)  # BMI, AVX2
BASE_EXTENDED_ECX: Final = (0, 5)  # LAHF, LZCNT
BASE_EXTENDED_EDX: Final = (11, 20, 26, 27, 29)  # 64 bit
OF_AMD_ECX: Final = (6, 7, 8, 22)  # SSE4a, misaligned SSE, prefetch, caches in leaf 8000001D
BITS_7_EBX: Final = {"avx512f": 16, "avx512dq": 17, "avx512ifma": 21, "avx512cd": 28, "avx512bw": 30, "avx512vl": 31}
BITS_7_ECX: Final = {"avx512_vbmi": 1, "avx512_vbmi2": 6, "gfni": 8, "vaes": 9, "vpclmulqdq": 10} | {
    "avx512_vnni": 11,
    "avx512_bitalg": 12,
    "avx512_vpopcntdq": 14,
}


def answers_of(processor: Processor) -> list[Leaf]:
    """Return what CPUID answers on this processor; what is not listed is zero, the number of the core left out."""
    is_amd = processor.vendor == "AuthenticAMD"
    first, second, third = (int.from_bytes(processor.vendor.encode()[at : at + 4], "little") for at in (0, 4, 8))
    extended = _bits(BASE_EXTENDED_ECX) | (_bits(OF_AMD_ECX) if is_amd else 0)
    return [
        (0, 0, 0x16, first, third, second),
        (1, 0, processor.signature, 16 << 16 | LINE // 8 << 8, _bits(BASE_1_ECX), _bits(BASE_1_EDX)),
        *(_caches(processor, leaf=0x8000001D if is_amd else 4)),
        (7, 0, 0, _bits(BASE_7_EBX) | _named(BITS_7_EBX, processor), _named(BITS_7_ECX, processor), 0),
        (0xB, 0, 1, THREADS, 0x100, 0),
        (0xB, 1, 7, processor.cores * THREADS, 0x201, 0),
        (0x80000000, 0, 0x8000001E if is_amd else 0x80000008, *((first, third, second) if is_amd else (0, 0, 0))),
        (0x80000001, 0, processor.signature if is_amd else 0, 0, extended, _bits(BASE_EXTENDED_EDX)),
        *_brand(processor.brand),
        *_caches_as_once(processor, is_amd=is_amd),
        (0x80000008, 0, 0x3030, 0, 0, 0),  # bits of addresses
        (0x8000001E, 0, 0, (THREADS - 1) << 8, 0, 0),
    ]


def written(leaves: Iterable[Leaf]) -> str:
    """Return the table as `answers.c` reads it: a line a leaf, hexadecimal."""
    return "".join(" ".join(f"{number:x}" for number in leaf) + "\n" for leaf in leaves)


def _bits(places: Iterable[int]) -> int:
    return sum(1 << place for place in places)


def _named(bits: dict[str, int], processor: Processor) -> int:
    return _bits(bits[name] for name in processor.beyond_avx2 if name in bits)


def _caches(processor: Processor, *, leaf: int) -> list[Leaf]:
    leaves: list[Leaf] = []
    for at, cache in enumerate(processor.caches):
        sharing = processor.cores * THREADS if cache.level == 3 else THREADS
        kind = HOLDS[cache.holds] | cache.level << 5 | 1 << 8 | (sharing - 1) << 14
        kind |= (processor.cores - 1) << 26 if leaf == 4 else 0
        sets = cache.kib * 1024 // (cache.ways * LINE)
        leaves.append((leaf, at, kind, LINE - 1 | (cache.ways - 1) << 22, sets - 1, 0))
    return leaves


def _caches_as_once(processor: Processor, *, is_amd: bool) -> list[Leaf]:
    """Return the leaves in which AMD named its caches first, and Intel its second level."""
    data, code, second, third = processor.caches
    of_first = [cache.kib << 24 | cache.ways << 16 | 1 << 8 | LINE for cache in (data, code)]
    of_second = second.kib << 16 | WAYS[second.ways] << 12 | 1 << 8 | LINE
    if not is_amd:
        return [(0x80000006, 0, 0, 0, of_second, 0)]
    of_third = third.kib // 512 << 18 | WAYS[third.ways] << 12 | 1 << 8 | LINE
    return [(0x80000005, 0, 0, 0, *of_first), (0x80000006, 0, 0, 0, of_second, of_third)]


def _brand(brand: str) -> list[Leaf]:
    words = brand.encode().ljust(48, b"\0")
    numbers = [int.from_bytes(words[at : at + 4], "little") for at in range(0, 48, 4)]
    return [(0x80000002 + at, 0, *numbers[4 * at : 4 * at + 4]) for at in range(3)]
