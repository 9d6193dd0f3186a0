"""Builds the network of a trial, a torchvision ResNet, so that its weights load anywhere torchvision is."""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from tune_cifar.trial.config import torchvision_builder_name


def build_model(model: str, *, num_classes: int, stem: str = "imagenet", seed: int) -> nn.Module:
    """Build `model` with weights drawn from `seed`; takes float images of shape [n, 3, height, width].

    `stem="imagenet"` is torchvision's own 7x7 convolution and max pool. `stem="cifar"` is the 3x3,
    stride 1, no-pool form for 32x32 images (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).
    """
    builder = torchvision_builder_name(model)
    if builder is None:
        raise ValueError(f"unknown model {model!r}")
    # A fork keeps the caller's random state: building a model must not change what it draws next.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = torchvision.models.get_model(builder, weights=None, num_classes=num_classes)
        if stem == "cifar":
            network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
            network.maxpool = nn.Identity()
    return network
