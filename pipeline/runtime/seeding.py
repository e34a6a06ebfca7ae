"""Every random draw of the pipeline comes from a generator that is made here, from the seed and what it is for."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every part of `purpose`, alike on all machines."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator of its own for one purpose, for instance ("draw", epoch)."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *purpose))


@contextmanager
def global_seed(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's global CPU generator within the block, for libraries that know no other, then restore it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, *purpose))
        yield
