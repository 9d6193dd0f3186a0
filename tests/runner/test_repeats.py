"""The hand-out of repeats, driven as Tune drives it; whole searches with repeats are in test_search_repeats.py."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from ray.tune.search import Searcher

from tune_cifar.finalists import Repeats
from tune_cifar.results import Status
from tune_cifar.runner.repeats import RepeatSearch
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import Metric

LOSS = Metric("val_loss")


class Tune:
    """Tune's side: a list of trials, told to the log as in a step of its loop."""

    def __init__(self, search: RepeatSearch, log: SearchLog) -> None:
        self.search = search
        self.log = log
        self.trials: list[Any] = []
        log.on_step_begin(0, self.trials)

    def ask(self) -> Any:
        """Start the next trial; None while there is nothing to start, FINISHED at the end."""
        trial_id = f"t{len(self.trials) + 1}"
        config = self.search.suggest(trial_id)
        if isinstance(config, dict):
            trial = TuneTrial(trial_id, {"seed": 0, **copy.deepcopy(config)})
            self.trials.append(trial)
            self.log.on_trial_start(0, self.trials, trial)  # type: ignore[arg-type]
            return trial
        return config

    def end(self, trial: Any, value: float, status: Status = "finished") -> None:
        result = {"epoch": 1, "val_loss": value, "status": status}
        self.search.on_trial_result(trial.trial_id, result)
        self.log.on_trial_result(0, self.trials, trial, result)
        trial.last_result = result
        self.search.on_trial_complete(trial.trial_id, result)
        self.log.on_trial_complete(0, self.trials, trial)
        trial.ended = True


class TuneTrial:
    def __init__(self, trial_id: str, config: dict[str, Any]) -> None:
        self.trial_id = trial_id
        self.config = config
        self.last_result: dict[str, Any] = {}
        self.ended = False

    def is_finished(self) -> bool:
        return self.ended


class Suggestions(Searcher):  # type: ignore[misc]
    """A searcher that goes through learning rates and notes what it is told."""

    def __init__(self, over_after: int = 99) -> None:
        super().__init__(metric="val_loss", mode="min")
        self.over_after = over_after
        self.suggested: list[str] = []
        self.results: list[str] = []

    def suggest(self, trial_id: str) -> Any:
        if len(self.suggested) >= self.over_after:
            return Searcher.FINISHED
        self.suggested.append(trial_id)
        return {"lr": len(self.suggested) / 10}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.results.append(trial_id)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        pass


def _make(over_after: int = 99, num_best: int = 2, num_seeds: int = 2) -> Tune:
    repeats = Repeats(num_best, num_seeds, 0)
    log = SearchLog("val_loss", repeats)
    return Tune(RepeatSearch(Suggestions(over_after), repeats, 3, LOSS, log), log)


def test_repeats_come_when_the_last_trial_has_ended() -> None:
    tune = _make()
    first, second, third = tune.ask(), tune.ask(), tune.ask()
    tune.end(first, 0.5)
    tune.end(third, 0.4)
    assert tune.ask() is None
    tune.end(second, 0.9)
    repeats = [tune.ask() for _ in range(4)]
    assert [(trial.config["lr"], trial.config["seed"]) for trial in repeats] == [(0.3, 1), (0.1, 1), (0.3, 2), (0.1, 2)]
    assert [tune.log.record_of(trial).repeat_of for trial in tune.trials] == [None, None, None, 3, 1, 3, 1]
    assert tune.ask() == Searcher.FINISHED


def test_a_repeat_that_does_well_changes_nothing_of_what_is_repeated() -> None:
    tune = _make(num_best=1)
    for value in (0.5, 0.9, 0.4):
        tune.end(tune.ask(), value)
    tune.end(tune.ask(), 0.8)
    last = tune.ask()
    assert (last.config["lr"], last.config["seed"]) == (0.3, 2)
    tune.end(last, 0.01)
    assert tune.ask() == Searcher.FINISHED


def test_the_searcher_hears_of_its_own_trials_only() -> None:
    tune = _make()
    for value in (0.5, 0.9, 0.4, 0.1, 0.1):
        tune.end(tune.ask(), value)
    assert tune.search.searcher.suggested == tune.search.searcher.results == ["t1", "t2", "t3"]


def test_a_search_that_ends_early_repeats_what_it_has() -> None:
    tune = _make(over_after=2)
    first, second = tune.ask(), tune.ask()
    assert tune.ask() is None
    tune.end(first, 0.5)
    tune.end(second, 0.2)
    assert [tune.ask().config["lr"] for _ in range(4)] == [0.2, 0.1, 0.2, 0.1]
    assert tune.ask() == Searcher.FINISHED


def test_where_nothing_can_win_nothing_is_repeated() -> None:
    tune = _make()
    for _ in range(3):
        tune.end(tune.ask(), 0.5, "diverged")
    assert tune.ask() == Searcher.FINISHED


@pytest.mark.parametrize("ended", range(7))
def test_a_resumed_search_runs_what_is_left_and_nothing_twice(ended: int) -> None:
    """Whenever it is cut, the trials that Tune knows are enough to go on."""
    undisturbed, cut = _make(), _make()
    for tune in (undisturbed, cut):
        for number in range(7 if tune is undisturbed else ended):
            tune.end(tune.ask(), [0.5, 0.9, 0.4, 0.3, 0.2, 0.6, 0.1][number])
    resumed = _make()
    resumed.search.searcher = cut.search.searcher
    resumed.search.set_state(cut.search.get_state())
    resumed.log.set_state(pickle.loads(pickle.dumps(cut.log.get_state())))  # noqa: S301 made here
    resumed.trials += cut.trials
    for number in range(ended, 7):
        resumed.end(resumed.ask(), [0.5, 0.9, 0.4, 0.3, 0.2, 0.6, 0.1][number])
    assert resumed.ask() == Searcher.FINISHED
    assert [trial.config for trial in resumed.trials] == [trial.config for trial in undisturbed.trials]


def test_the_log_pickles_without_tunes_trials() -> None:
    tune = _make()
    tune.ask()
    assert pickle.loads(pickle.dumps(tune.log)).tune_trials == []  # noqa: S301 made here
