from typing import Any

import pytest

from tune_cifar.tracking.run_names import run_id, run_name


@pytest.mark.parametrize(
    ("config", "free", "name"),
    [
        (
            {"model": "ResNet18", "batch_size": 32, "lr": 0.00423, "epochs": 10},
            ("model", "batch_size", "lr"),
            "3-ResNet18-bs32-lr0.0042",
        ),
        ({"optimizer": {"lr": 1e-5, "nesterov": True}}, ("optimizer/lr", "optimizer/nesterov"), "3-lr1e-05-nesterov"),
        ({"nesterov": False, "weight_decay": 5e-4}, ("nesterov", "weight_decay"), "3-no_nesterov-wd0.0005"),
        ({"lr": 0.1}, (), "3"),
        ({"lr": 0.1}, ("absent",), "3"),
    ],
)
def test_run_names_tell_trials_apart(config: dict[str, Any], free: tuple[str, ...], name: str) -> None:
    assert run_name(3, config, free) == name


def test_run_names_stay_short() -> None:
    config = {f"parameter{number}": number for number in range(40)}
    name = run_name(12, config, tuple(config))
    assert 40 < len(name) <= 64
    assert name.startswith("12-parameter00-parameter11-")


def test_run_ids_are_plain_bounded_and_end_with_the_trial() -> None:
    assert run_id("my/search: #1?", "abc_00003") == "my-search-1-abc_00003"
    long = run_id("x" * 200, "abc_00003")
    assert len(long) == 64
    assert long.endswith("x-abc_00003")
