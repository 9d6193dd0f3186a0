from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.errors import UserError
from tune_cifar.finalists import (
    Repeats,
    best_configurations,
    describe_finalist,
    finalists,
    first_run_of,
    plan_repeats,
    repeats_have_ended,
    with_seed,
)
from tune_cifar.results import Status, TrialRecord
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import Metric, SweepConfig
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

LOSS = Metric("val_loss")
ACCURACY = Metric("val_accuracy", "maximize")


def _trial(
    number: int, value: float, seed: int = 0, repeat_of: int | None = None, status: Status = "finished", **config: Any
) -> TrialRecord:
    rows = [{"epoch": 1, "val_loss": value, "val_accuracy": value, "logged": [value]}]
    config = config or {"lr": (repeat_of or number) / 100}
    return TrialRecord(number, f"t{number}", {"seed": seed, **config}, status, rows, repeat_of=repeat_of)


@pytest.fixture
def read_config(tmp_path: Path) -> Callable[[str], SweepConfig]:
    def read(parameters: str) -> SweepConfig:
        path = tmp_path / "sweep.yaml"
        path.write_text(
            f"method: bayes\nmetric: {{name: val_loss}}\nparameters: {{lr: {{min: 0.1, max: 1.0}}{parameters}}}\n"
        )
        return load_sweep(path, check_parameter, EPOCH_METRICS)

    return read


@pytest.mark.parametrize(
    ("parameters", "search_seed", "seed"),
    [("", 7, 7), (", seed: {value: 3}", 7, 3), (", other: {parameters: {seed: {value: 3.0}}}", 7, 3)],
)
def test_repeats_have_the_seeds_after_the_searchs_own(
    read_config: Callable[[str], SweepConfig], parameters: str, search_seed: int, seed: int
) -> None:
    repeats = plan_repeats(read_config(parameters), repeat_best=4, seeds=3, search_seed=search_seed)
    assert repeats == Repeats(4, 3, seed)
    assert list(repeats.seeds) == [seed + 1, seed + 2, seed + 3]
    assert (repeats.most_repeats(10), repeats.most_repeats(2)) == (12, 6)


def test_no_flag_no_repeats(read_config: Callable[[str], SweepConfig]) -> None:
    assert plan_repeats(read_config(""), repeat_best=None, seeds=None, search_seed=0) is None


@pytest.mark.parametrize(
    ("parameters", "repeat_best", "search_seed", "message"),
    [
        ("", None, 0, "--seeds says how often --repeat-best trains a configuration again. Give --repeat-best too."),
        (", seed: {values: [1, 2]}", 2, 0, "searches seed itself. Leave --repeat-best out, or give the parameter one"),
        (", group: {parameters: {seed: {min: 1, max: 9}}}", 2, 0, "searches group.seed itself"),
        ("", 2, 2**63 - 2, "the seed of a repeat must be a whole number from 0 to 9223372036854775807"),
    ],
)
def test_repeats_that_make_no_sense_are_refused(
    read_config: Callable[[str], SweepConfig], parameters: str, repeat_best: int | None, search_seed: int, message: str
) -> None:
    with pytest.raises(UserError) as error:
        plan_repeats(read_config(parameters), repeat_best=repeat_best, seeds=2, search_seed=search_seed)
    assert message in str(error.value)


def test_the_seed_is_changed_wherever_it_stands() -> None:
    config = {"lr": 0.1, "group": {"seed": 1, "deep": {"list": [1]}}}
    changed = with_seed(config, 5)
    assert changed == {"lr": 0.1, "group": {"seed": 5, "deep": {"list": [1]}}}
    changed["group"]["deep"]["list"].append(2)
    assert config["group"] == {"seed": 1, "deep": {"list": [1]}}


@pytest.mark.parametrize(("metric", "numbers"), [(LOSS, [4, 2, 1]), (ACCURACY, [6, 1, 2])])
def test_finalists_are_the_best_different_configurations(metric: Metric, numbers: list[int]) -> None:
    trials = [
        _trial(1, 0.5),
        _trial(2, 0.3),
        _trial(3, 0.3, lr=0.02),  # trial 2 once more
        _trial(4, 0.2, status="stopped"),
        _trial(5, 0.9, seed=1, repeat_of=1),
        _trial(6, 0.6),
        _trial(7, 0.1 if metric is LOSS else 0.9, status="diverged"),
        _trial(8, math.nan),
    ]
    assert [trial.number for trial in best_configurations(trials, metric, 3)] == numbers
    assert len(best_configurations(trials, metric, 99)) == 4


def test_a_repeat_belongs_to_the_first_trial_of_its_configuration() -> None:
    trials = [_trial(1, 0.5, lr=0.1), _trial(2, 0.5, lr=0.2), _trial(3, 0.5, lr=0.2)]
    first = first_run_of({"seed": 9, "lr": 0.2}, trials)
    assert first is trials[1]
    assert first_run_of({"seed": 9, "lr": 0.3}, trials) is None


def test_what_is_missing_goes_round_the_finalists_seed_by_seed() -> None:
    repeats = Repeats(2, 2, 0)
    trials = [_trial(1, 0.5), _trial(2, 0.3), _trial(3, 0.4)]
    assert repeats.missing(trials, LOSS, []) == [
        {"seed": 1, "lr": 0.02},
        {"seed": 1, "lr": 0.03},
        {"seed": 2, "lr": 0.02},
        {"seed": 2, "lr": 0.03},
    ]
    assert repeats.missing(trials, LOSS, [{"lr": 0.03, "seed": 1}, {"lr": 0.02, "seed": 2}]) == [
        {"seed": 1, "lr": 0.02},
        {"seed": 2, "lr": 0.03},
    ]
    assert repeats.missing([_trial(1, 0.5, status="failed")], LOSS, []) == []


FIRST = [_trial(1, 0.30), _trial(2, 0.20), _trial(3, 0.40)]


def _repeated(*rows: tuple[int, float, Status]) -> list[TrialRecord]:
    repeats = [
        _trial(number, value, seed=1 + index % 2, repeat_of=first, status=status)
        for index, (number, (first, value, status)) in enumerate(enumerate(rows, start=4))
    ]
    return FIRST + repeats


@pytest.mark.parametrize("metric", [LOSS, ACCURACY])
def test_the_mean_over_the_seeds_decides_and_not_the_luckiest_run(metric: Metric) -> None:
    trials = _repeated((2, 0.5, "finished"), (2, 0.5, "finished"), (1, 0.31, "finished"), (1, 0.29, "finished"))
    best, other = finalists(trials, metric)
    assert (best.number, other.number) == ((1, 2) if metric is LOSS else (2, 1))
    steady = best if metric is LOSS else other
    assert steady.values == (0.30, 0.31, 0.29)
    assert steady.seeds == (0, 1, 2)
    assert steady.mean == pytest.approx(0.3)
    assert steady.standard_deviation == pytest.approx(0.01)


def test_a_configuration_that_diverges_with_some_seed_comes_last() -> None:
    trials = _repeated((2, 0.1, "diverged"), (2, 0.1, "finished"), (1, 0.9, "finished"), (1, 0.9, "failed"))
    best, last = finalists(trials, LOSS)
    assert (best.number, best.values) == (1, (0.30, 0.9))
    assert (last.number, last.values, last.diverged) == (2, (0.20, 0.1), 1)


def test_nothing_is_final_before_the_first_repeat() -> None:
    assert finalists(FIRST, LOSS) == []


def test_repeats_have_ended_when_each_was_run_to_its_end() -> None:
    repeats = Repeats(2, 2, 0)
    ended: list[tuple[int, float, Status]] = [(2, 0.5, "finished"), (2, 0.5, "failed"), (1, 0.3, "finished")]
    assert repeats_have_ended(_repeated(*ended, (1, 0.3, "diverged")), LOSS, repeats)
    assert not repeats_have_ended(_repeated(*ended, (1, 0.3, "waiting")), LOSS, repeats)
    assert not repeats_have_ended(_repeated(*ended), LOSS, repeats)


def test_a_finalist_in_words() -> None:
    trials = _repeated((2, 0.5, "finished"), (2, 0.1, "diverged"), (1, 0.9, "running"))
    lines = [describe_finalist(one, LOSS, won=one.number == 1) for one in finalists(trials, LOSS)]
    assert lines == [
        "trial 1: val_loss 0.3000 over 1 seed (0.3000) <- the winner",
        "trial 2: val_loss 0.3500 ± 0.2121 over 2 seeds (0.2000, 0.5000); diverged with 1",
    ]
