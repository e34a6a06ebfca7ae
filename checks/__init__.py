"""Checks by hand, which take too long for the suite.

Mutants: would a test notice a fault? Soak: does a run survive those who start, kill and starve it?
"""
