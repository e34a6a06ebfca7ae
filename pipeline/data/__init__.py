"""From raw files to checked manifests, and from these to batches of images, labels and masks.

May import `params` to `synthetic`.
"""
