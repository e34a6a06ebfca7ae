"""Class activation maps, read from a trained classifier: one function a method.

May import `params` to `encoders`.
"""
