from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.curves import CurveTable, Run, load_deepobs, load_table
from tune_cifar.errors import UserError


def run(optimizer: str, rate: float, losses: list[float], *, diverged: bool = False, seconds: float = 2.0) -> Run:
    return Run((optimizer,), rate, tuple(losses), diverged, seconds)


@pytest.fixture
def table() -> CurveTable:
    """Two epochs, best at 0.01 with sgd; sgd at 1 diverges in its second epoch, adam at 0.1 twice out of three."""
    runs = [
        run("sgd", 1.0, [3.0], diverged=True),
        run("sgd", 0.001, [2.0, 1.8]),
        run("sgd", 0.01, [1.2, 0.9], seconds=4.0),
        run("sgd", 0.01, [1.4, 1.1], seconds=4.0),
        run("sgd", 0.1, [1.6, 1.7]),
        run("adam", 0.001, [1.5, 1.3]),
        run("adam", 0.1, [9.0, 8.0]),
        run("adam", 0.1, [], diverged=True),
        run("adam", 0.1, [7.0], diverged=True),
    ]
    return CurveTable(["optimizer"], runs, num_epochs=2, untrained_loss=2.3)


def at(optimizer: str, rate: float) -> dict[str, Any]:
    return {"optimizer": optimizer, "lr": rate}


def test_a_measured_rate_gives_the_mean_of_its_seeds(table: CurveTable) -> None:
    assert table.mean_curve(at("sgd", 0.01)).losses == pytest.approx((1.3, 1.0))


def test_between_two_rates_each_epoch_is_interpolated_in_the_logarithm(table: CurveTable) -> None:
    middle = table.mean_curve(at("sgd", math.sqrt(0.001 * 0.01)))
    assert middle.losses == pytest.approx((1.65, 1.4))
    quarter = table.mean_curve(at("sgd", 0.01 * 10**0.25))
    assert quarter.losses == pytest.approx((0.75 * 1.3 + 0.25 * 1.6, 0.75 * 1.0 + 0.25 * 1.7))


@pytest.mark.parametrize(("rate", "diverges"), [(0.3, False), (0.33, True), (1.0, True)])
def test_beside_a_diverged_rate_the_nearer_one_counts(table: CurveTable, rate: float, diverges: bool) -> None:
    curve = table.mean_curve(at("sgd", rate))
    assert curve.diverged is diverges
    assert curve.losses == ((3.0,) if diverges else pytest.approx((1.6, 1.7)))
    assert table.draw(at("sgd", rate), np.random.default_rng(0)).diverged is diverges


def test_noise_has_the_spread_of_the_seeds_and_the_true_loss_is_that_of_the_mean(table: CurveTable) -> None:
    random = np.random.default_rng(0)
    last = np.array([table.draw(at("sgd", 0.01), random).losses[-1] for _ in range(400)])
    assert set(last.round(6)) == {round(1.0 - 0.1 * math.sqrt(2), 6), round(1.0 + 0.1 * math.sqrt(2), 6)}
    assert last.mean() == pytest.approx(1.0, abs=0.03)
    assert last.std() == pytest.approx(np.std([0.9, 1.1], ddof=1), rel=0.01)
    assert table.true_loss(at("sgd", 0.01)) == pytest.approx(1.0)


def test_a_spike_of_one_seed_makes_no_other_seed_better() -> None:
    runs = [run("sgd", 0.001, [2.0, 1.5]), run("sgd", 0.001, [2.0, 1.6])]
    runs += [run("sgd", 0.01, [22.0, 1.9]), run("sgd", 0.01, [1.9, 1.8])]
    table, random = CurveTable(["optimizer"], runs, num_epochs=2, untrained_loss=2.3), np.random.default_rng(0)
    at_spike = {table.draw(at("sgd", 0.01), random).losses for _ in range(50)}
    assert at_spike == {(22.0, 1.9), (1.9, 1.8)}
    between = [table.draw(at("sgd", 10**-2.5), random).losses for _ in range(100)]
    assert min(min(losses) for losses in between) == pytest.approx((1.5 + 1.8) / 2)
    assert len(set(between)) == 4


def test_a_rate_run_once_takes_the_noise_of_the_same_choices(table: CurveTable) -> None:
    random = np.random.default_rng(0)
    drawn = {table.draw(at("sgd", 0.001), random).losses for _ in range(50)}
    assert len(drawn) == 2
    assert table.draw(at("adam", 0.001), random).losses == (1.5, 1.3)  # no seed of adam was repeated and finished


def test_a_rate_diverges_as_often_as_its_runs_did(table: CurveTable) -> None:
    random = np.random.default_rng(0)
    curves = [table.draw(at("adam", 0.1), random) for _ in range(300)]
    assert np.mean([curve.diverged for curve in curves]) == pytest.approx(2 / 3, abs=0.1)
    assert table.true_loss(at("adam", 0.1)) == 2.3
    assert {curve.num_epochs for curve in curves} == {1, 2}


def test_what_is_worse_than_untrained_counts_as_untrained() -> None:
    table = CurveTable(["o"], [run("a", 0.1, [50.0]), run("a", 1.0, [60.0])], 1, untrained_loss=2.3)
    assert table.true_loss({"o": "a", "lr": 0.5}) == 2.3


def test_the_best_loss_is_that_of_a_fine_grid(table: CurveTable) -> None:
    for low, high in ((0.001, 1.0), (0.02, 0.05), (0.0012, 0.008)):
        grid = np.geomspace(low, high, 2001)
        finest = min(table.true_loss(at(optimizer, rate)) for optimizer in ("sgd", "adam") for rate in grid)
        assert table.best_loss(low, high) <= finest + 1e-12
        assert table.best_loss(low, high) == pytest.approx(finest, abs=1e-3)


def test_the_space_of_a_sweep_is_what_was_measured(table: CurveTable) -> None:
    assert table.sweep_parameters() == {
        "optimizer": {"values": ["sgd", "adam"]},
        "lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 1.0},
    }


def test_an_epoch_takes_the_median_time_of_the_same_choices(table: CurveTable) -> None:
    assert table.epoch_seconds(at("sgd", 0.5)) == 2.0
    untimed = CurveTable(["o"], [Run(("a",), rate, (1.0,), False) for rate in (0.1, 1.0)], 1, 2.3)
    assert untimed.epoch_seconds({"o": "a", "lr": 0.2}) == 1.0


def test_reads_a_table_file(tmp_path: Path) -> None:
    def epoch(loss: float | None) -> dict[str, Any]:
        return {"val_loss": loss, "val_accuracy": 0.5, "train_loss": 1.0, "seconds": 3.0}

    def row(lr: float, losses: list[float | None]) -> dict[str, Any]:
        return {"model": "ResNet18", "batch_size": 32, "lr": lr, "seed": 0, "epochs": [epoch(loss) for loss in losses]}

    path = tmp_path / "table.json"
    rows = [row(0.001, [2.0, 1.0]), row(0.1, [2.5, None]), row(0.01, [1.5, 0.5])]
    path.write_text(json.dumps({"provenance": {"seeds": 1}, "runs": rows}))
    table = load_table(path)
    assert table.num_epochs == 2
    assert table.untrained_loss == pytest.approx(math.log(10))
    assert table.mean_curve({"model": "ResNet18", "batch_size": 32, "lr": 0.01}).losses == (1.5, 0.5)
    assert table.mean_curve({"model": "ResNet18", "batch_size": 32, "lr": 0.1}).diverged
    assert table.epoch_seconds({"model": "ResNet18", "batch_size": 32, "lr": 0.1}) == 3.0
    assert table.sweep_parameters()["batch_size"] == {"values": [32]}


def test_reads_the_runs_of_deepobs(tmp_path: Path) -> None:
    path = tmp_path / "deepobs.json"
    losses = [3.5, 2.0, 1.5, 1.0]
    rows = [{"optimizer": "Adam", "lr": 0.1 * n, "seed": 1, "test_loss": losses, "test_acc": []} for n in (1, 2)]
    rows.append({"optimizer": "Adam", "lr": 9.0, "seed": 1, "test_loss": [3.5, 7.0, None, None], "test_acc": []})
    path.write_text(json.dumps(rows))
    table = load_deepobs(path, 2)
    assert table.mean_curve(at("Adam", 0.1)).losses == (2.0, 1.5)
    assert table.untrained_loss == 3.5
    assert table.mean_curve(at("Adam", 9.0)).num_epochs == 2


@pytest.mark.parametrize("content", [None, "not JSON", "{}", '[{"optimizer": "Adam"}]', '{"runs": [{"epochs": []}]}'])
def test_a_file_that_is_no_table_is_a_mistake_of_the_user(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(content)
    for load in (load_table, lambda path: load_deepobs(path, 5)):
        with pytest.raises(UserError, match=r"table\.json"):
            load(path)
