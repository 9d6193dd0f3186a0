"""What an undisturbed search would find: each config trained alone, in this process, and the plan's own configs."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos.search_under_test import TRAIN_IMAGES
from tune_cifar.runner.searcher import SweepSearch
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.searcher import plan_search
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.config import EPOCH_METRICS, TrialConfig, check_parameter
from tune_cifar.trial.data import ImageDataset, load_dataset
from tune_cifar.trial.device import choose_device, prepare_device
from tune_cifar.trial.training import TrainingRun

SCORES = ("train_loss", "val_loss", "val_accuracy")

Row = dict[str, float]


def reference_rows(config: Mapping[str, Any]) -> list[Row]:
    """The scores of every epoch of one config, trained from the start with nothing in its way."""
    return _train(json.dumps(dict(config), sort_keys=True))


@functools.cache
def _train(config: str) -> list[Row]:
    device = choose_device()
    prepare_device(device, cpu_threads=1)
    run = TrainingRun(TrialConfig.from_parameters(json.loads(config)), _digits(), device)
    results = [result.metrics() for result in run.epochs()]
    return [{name: result[name] for name in SCORES} for result in results]


@functools.cache
def _digits() -> ImageDataset:
    return load_dataset("digits", train_images=TRAIN_IMAGES)


def planned_configs(sweep: Path, *, seed: int, trials_at_once: int) -> list[dict[str, Any]]:
    """The configs of an undisturbed search, in order; one by one, each with the results of those before it."""
    config = load_sweep(sweep, check_parameter, EPOCH_METRICS)
    space = SearchSpace(config)
    plan = plan_search(config, space, num_trials=None, seed=seed, trials_at_once=trials_at_once)
    searcher = SweepSearch(space, plan, config.metric)
    constants = {"seed": seed, "precision": "fp32"}
    configs = []
    for number in range(plan.num_trials):
        trial_id = str(number)
        suggested = searcher.suggest(trial_id)
        assert isinstance(suggested, dict)
        configs.append({**constants, **suggested})
        if config.method == "bayes":
            for epoch, row in enumerate(reference_rows(configs[-1]), start=1):
                searcher.on_trial_result(trial_id, {"epoch": epoch, **row})
            searcher.on_trial_complete(trial_id, {})
    return configs
