from __future__ import annotations

import math

import pytest
import torch

from tune_cifar.trial.schedule import make_lr_schedule


def _rates(name: str, num_steps: int) -> tuple[list[float], torch.optim.Optimizer]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4, momentum=0.7)
    schedule = make_lr_schedule(name, optimizer, num_steps=num_steps)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates, optimizer


def test_constant() -> None:
    assert _rates("constant", 5)[0] == [0.4] * 5


def test_cosine_falls_to_zero() -> None:
    rates, optimizer = _rates("cosine", 8)
    assert rates == pytest.approx([0.2 * (1 + math.cos(math.pi * step / 8)) for step in range(8)])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_onecycle_peaks_at_the_rate_and_keeps_the_momentum() -> None:
    rates, optimizer = _rates("onecycle", 20)
    assert max(rates) == pytest.approx(0.4, rel=1e-2)
    assert rates[0] < 0.1 > rates[-1]
    assert optimizer.param_groups[0]["momentum"] == 0.7


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        make_lr_schedule("step", torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), num_steps=1)
