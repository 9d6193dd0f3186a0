"""The versions that a result depends on, here because a number without them cannot be compared."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import tune_cifar

PACKAGES = ("torch", "torchvision", "ray", "optuna", "wandb", "numpy")


def installed_versions() -> dict[str, str]:
    """Versions of this project, Python and the packages whose change can change a result."""
    versions = {"tune_cifar": tune_cifar.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # A machine that only trains has neither Ray nor W&B.
            continue
    return versions
