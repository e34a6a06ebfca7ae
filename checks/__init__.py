"""Checks by hand, which take too long for the suite: would a test notice a fault, and does a run survive its users?"""
