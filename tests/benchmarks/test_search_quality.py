from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import search_quality
from benchmarks.curves import CurveTable, Run
from benchmarks.search_methods import METHODS, ONE_EPOCH, FixedSearcher, OurSearcher, Setup, run_method
from benchmarks.search_simulator import End, SearchRecord, SearchTask, simulate, simulate_one_epoch
from benchmarks.search_statistics import (
    Cell,
    after_epochs,
    after_trials,
    estimate,
    ratio_verdict,
    verdicts,
)
from benchmarks.wandb_searcher import EngineProcess, WandbSearcher
from tune_cifar.errors import UserError
from tune_cifar.sweep.early_stopping import HyperbandRule
from tune_cifar.sweep.schema import Hyperband

IN_PROCESS = [method for method in METHODS if not method.startswith("wandb")]


def curve_table(num_epochs: int = 3) -> CurveTable:
    """A bowl in the learning rate whose bottom is at 0.01; "slow" takes thrice the time and ends 0.1 higher.

    Losses fall by 0.2 an epoch. Rates of 10 and more diverge in the second epoch.
    """
    runs = []
    for model, extra, seconds in (("fast", 0.0, 1.0), ("slow", 0.1, 3.0)):
        for exponent in range(-4, 3):
            last = 1.0 + extra + 0.2 * abs(exponent + 2)
            losses = [last + 0.2 * left for left in range(num_epochs - 1, -1, -1)]
            diverged = exponent > 0
            runs.append(Run((model,), 10.0**exponent, tuple(losses[:1] if diverged else losses), diverged, seconds))
    return CurveTable(["model"], runs, num_epochs, untrained_loss=2.3)


@pytest.fixture
def task() -> SearchTask:
    table = curve_table()
    metric = {"name": "val_loss", "goal": "minimize"}
    return SearchTask("bowl", table, {"method": "bayes", "metric": metric, "parameters": table.sweep_parameters()})


class Scripted(FixedSearcher):
    """Fixed configs, and a note of everything that happens."""

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(configs)
        self.happened: list[str] = []

    def suggest(self, number: int) -> Mapping[str, Any]:
        self.happened.append(f"start {number}")
        return super().suggest(number)

    def observe(self, number: int, losses: Sequence[float], end: End) -> None:
        self.happened.append(f"{end} {number} after {len(losses)}")


def config(model: str, lr: float) -> dict[str, Any]:
    return {"model": model, "lr": lr}


def test_regret_is_the_true_loss_of_the_chosen_config_above_the_best(task: SearchTask) -> None:
    configs = [config("slow", 100.0), config("fast", 1.0), config("slow", 0.01), config("fast", 0.001)]
    record = simulate(task, FixedSearcher(configs), num_trials=4, workers=1, seed=0)
    assert record.regrets == pytest.approx([2.3 - 1.0, 0.4, 0.1, 0.1])
    assert record.ends == ["diverged", "finished", "finished", "finished"]
    assert record.losses == [None, pytest.approx(1.4), pytest.approx(1.1), pytest.approx(1.2)]
    assert record.epochs == [2, 5, 8, 11]
    assert record.seconds == [6.0, 9.0, 18.0, 21.0]


def test_the_chosen_config_is_the_luckiest_one_but_its_true_loss_counts() -> None:
    runs = [Run(("a",), 0.1, (loss,), False) for loss in (1.0, 2.0)] + [Run(("a",), 1.0, (1.4,), False)]
    table = CurveTable(["o"], runs, 1, untrained_loss=2.3)
    task = SearchTask("lucky", table, {"parameters": {"lr": {"min": 0.1, "max": 1.0}}})
    configs = [{"o": "a", "lr": 1.0}] + [{"o": "a", "lr": 0.1}] * 20
    record = simulate(task, FixedSearcher(configs), num_trials=21, workers=1, seed=0)
    assert record.regrets[0] == 0
    assert record.regrets[-1] == pytest.approx(0.1)  # true losses are 1.4 and 1.5, but some run of the other saw 0.79


def test_a_free_worker_takes_the_next_trial_while_others_still_run(task: SearchTask) -> None:
    names = ["slow", "fast", "fast", "fast", "fast"]
    searcher = Scripted([config(name, 0.01) for name in names])
    record = simulate(task, searcher, num_trials=5, workers=2, seed=0)
    assert searcher.happened == [
        "start 0", "start 1",
        "finished 1 after 3", "start 2",
        "finished 2 after 3", "start 3",
        "finished 0 after 3", "start 4",
        "finished 3 after 3", "finished 4 after 3",
    ]  # fmt: skip
    assert record.seconds == [3.0, 6.0, 9.0, 9.0, 12.0]
    assert record.epochs == [4, 8, 11, 12, 15]


def test_stops_early_what_the_sweeps_rule_stops(task: SearchTask) -> None:
    searcher = Scripted([config("fast", lr) for lr in (0.01, 0.1, 1.0, 0.01)])
    rule = HyperbandRule(Hyperband(min_iter=1), "minimize")
    record = simulate(task, searcher, num_trials=4, workers=1, seed=0, rule=rule)
    assert record.ends == ["finished", "stopped", "stopped", "finished"]
    assert record.epochs == [3, 4, 5, 8]
    assert searcher.happened[3] == "stopped 1 after 1"


def test_one_epoch_goes_on_with_the_best_and_pays_for_every_epoch(task: SearchTask) -> None:
    configs = [config("slow", 100.0), config("fast", 1.0), config("slow", 0.01), config("fast", 0.01)]
    record = simulate_one_epoch(task, configs, keep=2, seed=0)
    assert record.epochs == [2, 5, 7, 8]
    assert record.regrets == pytest.approx([1.3, 0.4, 0.1, 0.0])


def test_all_methods_meet_the_same_luck(task: SearchTask) -> None:
    noisy = [Run(("a",), rate, (loss,), False) for rate in (0.1, 1.0) for loss in (1.0, 1.2, 1.5, 2.0)]
    task = SearchTask("noisy", CurveTable(["o"], noisy, 1, 2.3), {"parameters": {"lr": {"min": 0.1, "max": 1.0}}})
    same = [{"o": "a", "lr": 0.1}] * 6
    losses = [
        simulate(task, FixedSearcher(same), num_trials=6, workers=w, seed=s).losses for w, s in ((1, 3), (1, 3), (1, 4))
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("method", IN_PROCESS)
def test_each_method_runs_a_search(task: SearchTask, method: str, workers: int) -> None:
    record = run_method(method, Setup(task, 6, workers, seed=2))
    assert len(record.regrets) == len(record.suggestion_seconds) == 6
    assert record.regrets == sorted(record.regrets, reverse=True)  # there is no noise here
    assert record.regrets[-1] < 1.3
    first, again, other = (METHODS[method].make(Setup(task, 6, workers, seed)).suggest(0) for seed in (2, 2, 3))
    assert first == again != other


def test_one_epoch_runs_as_many_configs_as_the_epochs_allow(task: SearchTask) -> None:
    record = run_method(ONE_EPOCH, Setup(task, 6, 1, seed=0))
    assert 6 * 3 - 3 < record.epochs[-1] <= 6 * 3
    assert record.regrets[-1] < record.regrets[0]


def test_our_search_is_told_what_the_product_is_told(task: SearchTask) -> None:
    searcher = OurSearcher(Setup(task, 4, 1, seed=0))
    ends: list[tuple[list[float], End]] = [([1.5, 1.2, 1.3], "finished"), ([2.0], "stopped"), ([1.9], "diverged")]
    for number, (losses, end) in enumerate(ends):
        searcher.suggest(number)
        searcher.observe(number, losses, end)
    values = [trial.value for trial in searcher.search._ot_study.trials if trial.value is not None]
    assert values == [1.2, 2.0, 2.0]  # the best of a history, and the worst seen for the diverged trial


def test_a_variant_of_ours_changes_its_plan(task: SearchTask) -> None:
    setup = Setup(task, 4, 1, seed=0)
    ours = OurSearcher(setup)
    other = OurSearcher(setup, lambda plan: dataclasses.replace(plan, start_points=plan.start_points[1:]))
    assert other.suggest(0) == [ours.suggest(0), ours.suggest(1)][1]


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    try:
        process = EngineProcess()
    except UserError as error:
        pytest.skip(str(error))
    yield process
    process.close()


def test_wandbs_engine_runs_searches_one_after_another(engine: EngineProcess, task: SearchTask) -> None:
    def search(seed: int) -> SearchRecord:
        return simulate(task, WandbSearcher(task.document, seed, engine), num_trials=6, workers=2, seed=0)

    first, second, again = search(1), search(2), search(1)
    assert len(first.regrets) == 6
    assert first.configs == again.configs != second.configs
    assert all(one["model"] in ("fast", "slow") and 1e-4 <= one["lr"] <= 100 for one in first.configs)


def record_of(regrets: Sequence[float], epochs: Sequence[int] = ()) -> SearchRecord:
    return SearchRecord(regrets=list(regrets), epochs=list(epochs or range(5, 5 * len(regrets) + 1, 5)))


def test_regret_is_read_after_trials_and_after_epochs() -> None:
    records = [record_of([0.5, 0.3, 0.1]), record_of([0.4, 0.4, 0.2], [2, 4, 9])]
    assert after_trials(records, 2).tolist() == [0.3, 0.4]
    assert after_epochs(records, 9).tolist() == [0.5, 0.2]
    assert np.isnan(after_epochs(records, 4)[0])


def test_a_bootstrap_interval_covers_what_theory_says() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 100)
    mean = estimate(values, "mean")
    assert mean.value == pytest.approx(values.mean())
    half_width = 1.96 * values.std() / 10
    assert mean.high - mean.value == pytest.approx(half_width, rel=0.15)
    assert mean.value - mean.low == pytest.approx(half_width, rel=0.15)
    assert estimate(values, "p90").value == pytest.approx(np.quantile(values, 0.9))
    assert estimate(np.full(10, 3.0), "median").low == estimate(np.full(10, 3.0), "median").high == 3.0


def test_a_ratio_is_as_sure_as_its_pairs() -> None:
    noise = np.random.default_rng(0).uniform(1, 100, 40)
    sure = ratio_verdict("half", 0.4 * noise, [noise, 10 * noise], "median", 0.5)  # paired, so never in doubt
    assert (sure.met, sure.certainty) == (True, 1.0)
    assert sure.measured.startswith("0.40 ")
    missed = ratio_verdict("half", 0.6 * noise, [noise], "median", 0.5)
    assert (missed.met, missed.certainty) == (False, 0.0)
    assert ratio_verdict("half", 0 * noise, [0 * noise], "median", 0.5).met


def test_the_targets_are_checked_for_the_methods_that_ran() -> None:
    results = {
        Cell("t", 1, "ours"): [record_of([0.1, 0.05], [5, 10])] * 3,
        Cell("t", 1, "ours-curve"): [record_of([0.1, 0.05], [5, 6])] * 3,
        Cell("t", 1, "wandb"): [record_of([0.5, 0.1])] * 3,
        Cell("t", 4, "ours"): [record_of([0.1, 0.08])] * 3,
    }
    met = {row.target: row.met for row in verdicts(results, "t", (1, 2))}
    assert met == {
        "median after 1: at most a quarter of wandb's": True,
        "median after 2: at most a third of wandb's": False,
        "mean after 1: not worse than any peer's": True,
        "p90 after 1: not worse than any peer's": True,
        "mean after 2: not worse than any peer's": True,
        "p90 after 2: not worse than any peer's": True,
        "median after 2, 4 at once: at most 1.5 times that of one at a time": False,
        "median after 2 with early stopping: not worse than without": True,
        # Half of 10 epochs: one trial has ended by then, which had chosen no better than the first.
        "median with early stopping after half the epochs: not worse than without after all": False,
        "epochs with early stopping: at most half of those without": False,
    }


@pytest.fixture
def tutorial_table(tmp_path: Path) -> Path:
    rows = []
    for model in ("ResNet18", "ResNet34"):
        for batch_size in (32, 128):
            for exponent in (-4, -3, -2, -1):
                losses = [1.5 + abs(exponent + 2.5) - 0.1 * epoch for epoch in range(2)]
                epochs = [{"val_loss": x, "val_accuracy": 0.5, "train_loss": x, "seconds": 1.0} for x in losses]
                row = {"model": model, "batch_size": batch_size, "lr": 10.0**exponent, "seed": 0, "epochs": epochs}
                rows.append(row)
    path = tmp_path / "tutorial.json"
    path.write_text(json.dumps({"provenance": {}, "runs": rows}))
    return path


def test_the_command_prints_and_writes_everything(
    tutorial_table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = "--seeds 2 --trials 4 --tables tutorial,tutorial-file --workers 1,2 --methods ours,sobol,one-epoch"
    output = tmp_path / "out"
    arguments = [*flags.split(), "--no-timing", "--processes", "1", "--tutorial", str(tutorial_table)]
    assert search_quality.main([*arguments, "--output", str(output)]) == 0
    printed = capfd.readouterr().out
    assert "tutorial, 2 trials at once: regret after trials (2 seeds, 95% intervals)" in printed
    assert "median after 2: at most sobol's" in printed
    assert (output / "tables.md").read_text() in printed
    content = json.loads((output / "results.json").read_text())
    searches = {(row["table"], row["workers"], row["method"], row["seed"]) for row in content["searches"]}
    assert len(searches) == len(content["searches"]) == 2 * 2 * 2 * 2 + 2 * 2
    assert content["machine"]["versions"]["optuna"]
    rates = [c["lr"] for row in content["searches"] if row["table"] == "tutorial-file" for c in row["configs"]]
    assert 1e-4 <= min(rates) < max(rates) <= 1e-2
    svg = ElementTree.parse(output / "regret.svg")  # noqa: S314 - our own file
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}polyline"))) == 2 * (3 + 2 + 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "ours,magic"], "'magic' is not one of ours, "),
        (["--tables", "deepobs-6"], "'deepobs-6' is not one of deepobs-5, "),
        (["--workers", "1,0"], "must be a whole number above 0, got '0'"),
        (["--deepobs", "nowhere.json"], "nowhere.json: No such file or directory. Say with --deepobs"),
    ],
)
def test_mistakes_are_told_before_anything_runs(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        search_quality.main(flags)
