"""PixelCAM: weakly supervised object localization for histology, as a reproducible pipeline."""
