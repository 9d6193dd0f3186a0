"""Scores a network on a split, here because validation, the final test and `evaluate` must agree to the digit."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tune_cifar.trial.batches import DeviceImages, ordered_batches

EVALUATION_BATCH_SIZE = 500
"""Independent of the trial's batch size: in eval mode it changes the speed only."""


def evaluate_model(
    network: nn.Module, data: DeviceImages, outputs: list[torch.Tensor] | None = None
) -> tuple[float, float]:
    """Return the mean cross entropy and the accuracy (0..1) of `network` on all images of `data`.

    `outputs` gets what the network says of each batch, float32 [k, classes] before the softmax.
    """
    network.eval()
    loss_sum = torch.zeros((), dtype=torch.float64, device=data.labels.device)
    num_correct = torch.zeros((), dtype=torch.int64, device=data.labels.device)
    with torch.inference_mode():
        for images, labels in ordered_batches(data, EVALUATION_BATCH_SIZE):
            scores = network(images).float()
            if outputs is not None:
                outputs.append(scores)
            loss_sum += cross_entropy(scores, labels, reduction="sum")
            num_correct += (scores.argmax(dim=1) == labels).sum()
    return loss_sum.item() / len(data), num_correct.item() / len(data)
