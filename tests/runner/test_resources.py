from __future__ import annotations

import pytest

from tune_cifar.errors import UserError
from tune_cifar.runner.resources import NodeResources, plan_slots

LAPTOP = NodeResources(cpus=8, gpus=0)
EIGHT_GPUS = NodeResources(cpus=96, gpus=8)


def test_one_trial_a_core_with_one_thread_where_there_is_no_gpu() -> None:
    slots = plan_slots([LAPTOP])
    assert (slots.trials_at_once, slots.cpus_per_trial, slots.gpus_per_trial, slots.cpu_threads) == (8, 1, 0, 1)


def test_one_trial_a_gpu_where_there_are_gpus() -> None:
    slots = plan_slots([EIGHT_GPUS, EIGHT_GPUS])
    assert (slots.trials_at_once, slots.gpus_per_trial) == (16, 1)
    assert slots.reason == "16 GPU(s) and 192 CPU core(s) on 2 machine(s)"


def test_machines_without_a_gpu_take_no_trial_of_a_gpu_search() -> None:
    assert plan_slots([LAPTOP, EIGHT_GPUS]).trials_at_once == 8


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.5, 16), (0.4, 16), (1 / 3, 24), (0.25, 32), (0.1, 80), (2, 4), (3, 2)]
)
def test_a_fraction_of_a_gpu_is_a_share_of_one_and_whole_ones_are_not_shared(fraction: float, expected: int) -> None:
    assert plan_slots([EIGHT_GPUS], gpus_per_trial=fraction).trials_at_once == expected


def test_cores_bound_the_trials_of_a_gpu_machine() -> None:
    assert plan_slots([NodeResources(cpus=4, gpus=8)]).trials_at_once == 4
    assert plan_slots([NodeResources(cpus=12, gpus=8)], cpus_per_trial=3).trials_at_once == 4


def test_the_threads_of_a_trial_are_its_whole_cores() -> None:
    assert plan_slots([LAPTOP], cpus_per_trial=2.5).cpu_threads == 2
    half = plan_slots([LAPTOP], cpus_per_trial=0.5)
    assert (half.cpu_threads, half.trials_at_once) == (1, 16)


def test_fewer_at_once_is_the_users_choice_and_more_is_refused() -> None:
    assert plan_slots([LAPTOP], trials_at_once=3).trials_at_once == 3
    with pytest.raises(UserError, match=r"--trials-at-once 9 does not fit: .* hold 8 trial"):
        plan_slots([LAPTOP], trials_at_once=9)


def test_a_trial_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(UserError, match=r"16 CPU cores and 0 GPUs: there are 8 cores and 0 GPUs on 1 machine"):
        plan_slots([LAPTOP], cpus_per_trial=16)
    with pytest.raises(UserError, match=r"Lower --cpus-per-trial or --gpus-per-trial"):
        plan_slots([LAPTOP], gpus_per_trial=1)
