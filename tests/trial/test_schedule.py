from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from tune_cifar.trial.schedule import learning_rate_schedule


def _torchs_rates(make: Callable[[torch.optim.Optimizer], LRScheduler], num_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    schedule = make(optimizer)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def _rates(name: str, num_steps: int) -> list[float]:
    rate_of = learning_rate_schedule(name, lr=0.4, num_steps=num_steps)
    return [rate_of(step) for step in range(num_steps)]


def test_constant() -> None:
    assert _rates("constant", 5) == [0.4] * 5


@pytest.mark.parametrize("num_steps", [1, 2, 8, 351])
def test_cosine_is_torchs_and_falls_to_zero(num_steps: int) -> None:
    expected = _torchs_rates(lambda optimizer: CosineAnnealingLR(optimizer, T_max=num_steps), num_steps)
    assert _rates("cosine", num_steps) == pytest.approx(expected, rel=1e-9)
    assert learning_rate_schedule("cosine", lr=0.4, num_steps=num_steps)(num_steps) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("num_steps", [3, 20, 351])
def test_onecycle_is_torchs_with_the_rate_as_its_peak(num_steps: int) -> None:
    # One step more than is trained: torch's refuses to be stepped after its last one.
    expected = _torchs_rates(
        lambda optimizer: OneCycleLR(optimizer, max_lr=0.4, total_steps=num_steps + 1, cycle_momentum=False), num_steps
    )
    assert _rates("onecycle", num_steps) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_onecycle_of_a_step_or_two_stays_within_its_peak(num_steps: int) -> None:
    assert all(0 < rate <= 0.4 for rate in _rates("onecycle", num_steps))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        learning_rate_schedule("step", lr=1.0, num_steps=1)
