"""Adapters: each turns one way of keeping raw data into the neutral listing that preparation checks."""
