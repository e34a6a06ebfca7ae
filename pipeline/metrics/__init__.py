"""Pure functions from maps, masks and logits to numbers, and what they are counted in.

May import `params` to `models`.
"""
