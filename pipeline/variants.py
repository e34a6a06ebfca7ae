"""What else is scored beside the scores proper: other seeds, other selections of weights, other test-time options."""

from collections.abc import Collection
from dataclasses import dataclass

from pipeline.choices import TestTime, Weights
from pipeline.config import Params


@dataclass(frozen=True)
class Variant:
    """The seed of the chain, which of its weights are scored, and what is done before with images or model."""

    seed: int
    weights: Weights
    test_time: TestTime


def list_variants(params: Params, kept: Collection[Weights]) -> tuple[Variant, ...]:
    """Return what is scored: first the scores proper, then what differs from them in one thing each.

    Args:
        params: all parameters.
        kept: the selections whose weights both models of the first chain have.
    """
    weights, first = params.evaluate_ood.weights, params.evaluate_ood.test_time[0]
    return (
        Variant(params.seed, weights, first),
        *(Variant(params.seed, weights, option) for option in params.evaluate_ood.test_time[1:]),
        *(Variant(params.seed, other, first) for other in Weights if other in kept and other is not weights),
        *(Variant(seed, weights, first) for seed in params.seeds if seed != params.seed),
    )
