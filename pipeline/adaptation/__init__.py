"""Trained models brought to a domain by its images alone, without their labels: methods, and what watches them.

May import `params` to `training`.
"""
