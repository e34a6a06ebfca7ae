"""Checks by hand, which take too long for the suite.

Mutants: would a test notice a fault? Soak: does a run survive those who start, kill and starve it? Processors: are the
bytes those of dvc.lock on other makers' machines?
"""
