"""The processors that are imitated, each by what its maker publishes of it."""

from dataclasses import dataclass
from typing import Final, Literal

AVX512_FIRST: Final = ("avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl")
AVX512_LATER: Final = (
    *("avx512ifma", "avx512_vbmi", "avx512_vbmi2", "gfni", "vaes", "vpclmulqdq", "avx512_vnni", "avx512_bitalg"),
    "avx512_vpopcntdq",
)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A level of cache: its size in KiB and the number of its ways; a line is 64 bytes long."""

    level: Literal[1, 2, 3]
    holds: Literal["data", "code", "both"]
    kib: int
    ways: int


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What a processor says of itself; all of them have AVX2. `signature` is family, model and stepping."""

    brand: str
    vendor: Literal["GenuineIntel", "AuthenticAMD"]
    signature: int
    cores: int
    beyond_avx2: tuple[str, ...]
    caches: tuple[Cache, ...]


def _caches(
    *, data: tuple[int, int], code: tuple[int, int], second: tuple[int, int], third: tuple[int, int]
) -> tuple[Cache, ...]:
    return (
        Cache(level=1, holds="data", kib=data[0], ways=data[1]),
        Cache(level=1, holds="code", kib=code[0], ways=code[1]),
        Cache(level=2, holds="both", kib=second[0], ways=second[1]),
        Cache(level=3, holds="both", kib=third[0], ways=third[1]),
    )


PROCESSORS: Final = {
    "haswell": Processor(
        brand="Intel(R) Xeon(R) CPU E5-2680 v3 @ 2.50GHz",
        vendor="GenuineIntel",
        signature=0x306F2,
        cores=12,
        beyond_avx2=(),
        caches=_caches(data=(32, 8), code=(32, 8), second=(256, 8), third=(30720, 20)),
    ),
    "skylake": Processor(
        brand="Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz",
        vendor="GenuineIntel",
        signature=0x50654,
        cores=20,
        beyond_avx2=AVX512_FIRST,
        caches=_caches(data=(32, 8), code=(32, 8), second=(1024, 16), third=(28160, 11)),
    ),
    "icelake": Processor(
        brand="Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz",
        vendor="GenuineIntel",
        signature=0x606A6,
        cores=32,
        beyond_avx2=AVX512_FIRST + AVX512_LATER,
        caches=_caches(data=(48, 12), code=(32, 8), second=(1280, 20), third=(55296, 12)),
    ),
    "rome": Processor(
        brand="AMD EPYC 7702 64-Core Processor",
        vendor="AuthenticAMD",
        signature=0x830F10,
        cores=64,
        beyond_avx2=(),
        caches=_caches(data=(32, 8), code=(32, 8), second=(512, 8), third=(16384, 16)),
    ),
}
