"""The one training loop, the objectives it serves, its states on disk, and the models it leaves.

May import `params` to `pseudo_labels`.
"""
