"""Synthetic histology: H&E-like images with exact masks; the whole pipeline runs where no data may be shipped."""
