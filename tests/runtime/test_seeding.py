"""Seeds depend on everything they are for, alike on all machines, and the global generator is left as it was."""

import pytest
import torch

from pipeline.runtime.seeding import derive_seed, global_seed, make_generator


def test_seeds_are_those_of_every_release() -> None:
    assert derive_seed(7, "draw", 3) == 5285885901613075373  # from `printf 7/draw/3 | sha256sum`


@pytest.mark.parametrize("other", [(8, "draw", 3), (7, "order", 3), (7, "draw", 4), (7, "draw"), (7, 3, "draw")])
def test_every_part_and_their_order_matter(other: tuple[int, ...]) -> None:
    assert derive_seed(*other) != derive_seed(7, "draw", 3)


def test_every_seed_fits_a_signed_64_bit_integer() -> None:
    seeds = [derive_seed(seed) for seed in range(200)]
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    assert max(seeds) > 2**62  # and the range is used


def test_generators_of_one_purpose_agree_and_of_two_differ() -> None:
    first, again, other = (make_generator(0, "draw", epoch) for epoch in (1, 1, 2))
    numbers = torch.rand(8, generator=first)
    assert torch.equal(numbers, torch.rand(8, generator=again))
    assert not torch.equal(numbers, torch.rand(8, generator=other))


def test_generators_leave_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(8, generator=make_generator(0, "draw"))
    assert torch.equal(torch.get_rng_state(), before)


def test_global_seed_repeats_whatever_came_before() -> None:
    with global_seed(0, "head"):
        first = torch.rand(4)
    torch.rand(3)
    with global_seed(0, "head"):
        again = torch.rand(4)
    with global_seed(1, "head"):
        other = torch.rand(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_seed_draws_what_make_generator_draws() -> None:
    with global_seed(0, "head"):
        drawn = torch.rand(4)
    assert torch.equal(drawn, torch.rand(4, generator=make_generator(0, "head")))


@pytest.mark.parametrize("fails", [False, True])
def test_global_generator_is_restored(fails: bool) -> None:
    before = torch.get_rng_state()
    try:
        with global_seed(0):
            torch.rand(4)
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert torch.equal(torch.get_rng_state(), before)
