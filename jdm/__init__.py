"""Joint image-mask diffusion for nnU-Net datasets."""

__version__ = "0.1.0"
