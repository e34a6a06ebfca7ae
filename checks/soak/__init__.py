"""Random experiments on tiny domains, killed, starved and beside each other: `make soak`.

Hypothesis, tried for the draws, lost to `random`: a run must be repeatable by its number, days later and alone, and its
extremes are those of floats and not of a param.
"""
