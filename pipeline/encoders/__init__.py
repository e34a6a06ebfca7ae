"""Any timm model as a trunk, unmodified; its weights, wherever they come from; and the heads on it.

May import `params` to `data`.
"""
