"""Hyperparameter search for image classifiers: a Weights & Biases sweep file, run on Ray Tune."""

__version__ = "0.1.0"
