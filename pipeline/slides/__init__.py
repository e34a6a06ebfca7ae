"""Whole slides: read at a resolution, where they show tissue, what is annotated on them, and their maps as files.

May import `params`, `runtime` and `synthetic`.
"""
