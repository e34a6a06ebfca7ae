"""Faults put into what the results rest on, one at a time: does a test notice? `make mutants`.

mutmut 3 was tried: it runs its tests twice in one process, which hypothesis refuses; it mutates no constant of a module
and no decorated function, draws no sample, and knows no list of equivalents. cosmic-ray starts a new process for each
mutant, which imports torch for seconds.
"""
