"""How often each class occurs in a domain, from predictions alone.

Expectation maximization: Saerens et al., "Adjusting the outputs of a classifier to new a priori probabilities",
Neural Computation 2002. It presumes that images of a class look as they did where the model learned.
"""

from typing import Final

from torch import Tensor

ROUNDS: Final = 1000  # at most
CLOSE: Final = 1e-8  # a change of the prior that ends it
LEAST: Final = 1e-6  # of a class, so that no logit is shifted without end


def estimate_prior(probabilities: Tensor, source_prior: Tensor) -> Tensor:
    """Return the most likely share of each class, float64 (K,), adding up to 1.

    Args:
        probabilities: float (N, K), as a model gives them that learned with the source prior.
        source_prior: float (K,), positive.
    """
    posterior, prior = probabilities.double(), source_prior.double()
    found = prior.clone()
    for _ in range(ROUNDS):
        weighted = posterior * (found / prior)
        updated = (weighted / weighted.sum(dim=1, keepdim=True)).mean(dim=0)
        change = (updated - found).abs().max()
        found = updated
        if change < CLOSE:
            break
    found = found.clamp_min(LEAST)
    return found / found.sum()
