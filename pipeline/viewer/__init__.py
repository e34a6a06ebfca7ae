"""A local page over a run: its images, maps and labels, and what a person sets aside.

May import `params` to `report`.
"""
