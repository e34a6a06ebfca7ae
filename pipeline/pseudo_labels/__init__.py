"""From a map to pixel labels, the Zarr store that holds them, and the few pixels drawn from it.

May import `params` to `metrics`.
"""
