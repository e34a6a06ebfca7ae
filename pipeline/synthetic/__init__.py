"""Synthetic histology: H&E-like images with exact masks, so that the whole pipeline runs where no data may be shipped."""
