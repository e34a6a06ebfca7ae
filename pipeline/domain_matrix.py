"""Every model against every domain in one table, with the drop from in domain to out; and the spread over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from pipeline.score_tables import jsonable
from pipeline.scores import Evaluation
from pipeline.variants import Variant

HEADLINE: Final = ("pxap", "dice", "accuracy")
SCORES: Final = ("pxap", "dice", "accuracy", "balanced_accuracy")
DROPS: Final = ("pxap", "accuracy")

ScoresByDomain = dict[str, dict[str, dict[str, object]]]
Scored = Mapping[Variant, Sequence[Evaluation]]


def matrix_table(scored: Scored, *, source: str) -> pd.DataFrame:
    """Return one row per variant, domain and model: what was scored, four scores, and two drops from in domain.

    A drop is the score on the source minus that on the row's domain, of the same model and variant. Fractions have six
    decimals; a score that is not defined is NaN.

    Args:
        scored: the evaluations of each variant, in the order of the rows; the source is among the domains.
        source: the domain that the models learned from.
    """
    rows = [row for variant, evaluations in scored.items() for row in _rows(variant, evaluations, source)]
    return pd.DataFrame(rows).round(6)


def _rows(variant: Variant, evaluations: Sequence[Evaluation], source: str) -> Iterator[dict[str, object]]:
    at_home = {each.model: each.scores for each in evaluations if each.domain == source}
    for each in evaluations:
        yield {
            "seed": variant.seed,
            "weights": variant.weights.value,
            "test_time": variant.test_time.value,
            "domain": each.domain,
            "in_domain": each.domain == source,
            "model": each.model.value,
            **{score: getattr(each.scores, score) for score in SCORES},
            **{f"{score}_drop": getattr(at_home[each.model], score) - getattr(each.scores, score) for score in DROPS},
        }


def headline(scores: ScoresByDomain) -> ScoresByDomain:
    """Return the few scores that experiments are compared by, so that DVC's tables of them fit on a screen."""
    return {
        domain: {model: {score: values[score] for score in HEADLINE} for model, values in models.items()}
        for domain, models in scores.items()
    }


def with_spread(scores: ScoresByDomain, scored: Scored) -> ScoresByDomain:
    """Add to each model's scores on a domain their `over_seeds`: mean, standard deviation and number of the chains.

    The standard deviation is that of a sample (n - 1). Of one chain alone nothing is added.

    Args:
        scores: `{domain: {model: {score: value}}}`, of the first variant.
        scored: the evaluations of each variant.
    """
    first = next(iter(scored))
    chains = [found for variant, found in scored.items() if replace(variant, seed=first.seed) == first]
    if len(chains) < 2:
        return scores
    spread = {
        (same[0].domain, same[0].model.value): {
            score: jsonable(_spread([getattr(each.scores, score) for each in same])) for score in SCORES
        }
        for same in zip(*chains, strict=True)
    }
    return {
        domain: {model: values | {"over_seeds": spread[domain, model]} for model, values in models.items()}
        for domain, models in scores.items()
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "standard_deviation": float(np.std(values, ddof=1)), "chains": len(values)}
