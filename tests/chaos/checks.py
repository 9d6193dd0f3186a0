"""What must hold of a search that has ended, whatever hit it on the way; each breach is told in one line."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from optuna.trial import TrialState

from tests.chaos.reference import SCORES, planned_configs, reference_rows
from tests.chaos.search_under_test import NUM_EPOCHS, NUM_TRIALS, SearchUnderTest
from tests.tracking.wandb_helpers import read_run
from tests.tracking.wandb_server import WandbServer
from tune_cifar.results import TrialRecord
from tune_cifar.trials_file import load_trials

STEPS = list(range(1, NUM_EPOCHS + 1))
"""An epoch of these trials logs one row, so that steps are epochs."""


@dataclass(frozen=True)
class Verdict:
    """The breaches of one search's promises in words, and the counts of the table."""

    problems: tuple[str, ...]
    trials_lost: int
    trials_run_twice: int
    epochs_repeated: int


def check(search: SearchUnderTest, server: WandbServer | None = None) -> Verdict:
    """Look at everything that the search has left; `server` is the W&B server that it was online with."""
    saved = load_trials(search.results)
    trials = saved.trials if saved else ()
    complete = [trial for trial in trials if trial.status == "finished" and len(trial.epochs) == NUM_EPOCHS]
    problems = [*_of_trials(search, trials), *_of_epochs(search)]
    if len(complete) == NUM_TRIALS:  # what follows is told by those that are missing
        problems += [*_of_searcher(search, trials), *_of_wandb(search, trials, server), *_of_model(search, trials)]
    return Verdict(
        problems=tuple(problems),
        trials_lost=max(0, NUM_TRIALS - len(complete)),
        trials_run_twice=_num_run_twice(search, trials),
        epochs_repeated=sum(len(epochs) - len(set(epochs)) for epochs in search.epochs().values()),
    )


def _of_trials(search: SearchUnderTest, trials: tuple[TrialRecord, ...]) -> Iterator[str]:
    if len(trials) != NUM_TRIALS:
        yield f"there are {len(trials)} trials and not {NUM_TRIALS}"
    configs = [json.dumps(trial.config, sort_keys=True) for trial in trials]
    if len(set(configs)) != len(configs):
        yield f"a config was tried twice: {configs}"
    if search.method != "bayes" or search.trials_at_once == 1:
        sweep = search.folder / "sweep.yaml"
        plan = planned_configs(sweep, seed=search.seed, trials_at_once=search.trials_at_once)
        missing = sorted({json.dumps(config, sort_keys=True) for config in plan} - set(configs))
        if missing:
            yield f"configs that the undisturbed search tries are missing: {missing}"
    for trial in trials:
        if trial.status != "finished":
            yield f"trial {trial.number} is {trial.status}: {trial.message}"
            continue
        rows = [{name: epoch[name] for name in SCORES} for epoch in trial.epochs]
        if rows != reference_rows(trial.config):
            yield f"trial {trial.number} has {rows} and not {reference_rows(trial.config)}"


def _of_epochs(search: SearchUnderTest) -> Iterator[str]:
    for number, epochs in search.epochs().items():
        pairs = zip([0, *epochs], epochs, strict=False)
        # The running epoch is lost with the process; one more, if it was told and its snapshot was not yet written.
        if not all(before <= epoch <= before + 1 for before, epoch in pairs):
            yield f"trial {number} lost more than an epoch: {epochs}"


def _num_run_twice(search: SearchUnderTest, trials: tuple[TrialRecord, ...]) -> int:
    again = sum(NUM_EPOCHS in epochs and 1 in epochs[epochs.index(NUM_EPOCHS) :] for epochs in search.epochs().values())
    return again + len(trials) - len({json.dumps(trial.config, sort_keys=True) for trial in trials})


def _of_searcher(search: SearchUnderTest, trials: tuple[TrialRecord, ...]) -> Iterator[str]:
    # Named by the time at which their session started; Tune copies the older ones anew, times of change and all.
    states = sorted(search.results.glob("ray*/searcher-state-*.pkl"), key=lambda path: path.name)
    if not states:
        yield "there is no state of the searcher"
        return
    study = pickle.loads(states[-1].read_bytes())["_ot_study"]  # noqa: S301 (this test's own search wrote it)
    told = sorted(trial.value for trial in study.trials if trial.state == TrialState.COMPLETE)
    best = sorted(min(epoch["val_loss"] for epoch in trial.epochs) for trial in trials)
    if told != best:
        yield f"the searcher knows {told} and not {best}"
    if len(study.trials) != len(told):
        yield f"the searcher has trials that did not end: {[trial.state.name for trial in study.trials]}"


def _of_wandb(search: SearchUnderTest, trials: tuple[TrialRecord, ...], server: WandbServer | None) -> Iterator[str]:
    for trial in trials:
        runs = [*_served(server, trial), *_written(search.results, trial)]
        expected = {epoch["epoch"]: epoch["val_loss"] for epoch in trial.epochs}
        whole = [run for run in runs if run["steps"] == STEPS and run["val_loss"] == expected and run["exit_code"] == 0]
        if not whole:
            yield f"no W&B run of trial {trial.number} is whole: {runs}"
        for run in runs:
            if sorted(set(run["steps"])) != run["steps"]:
                yield f"a W&B run of trial {trial.number} has a step twice: {run}"


def _served(server: WandbServer | None, trial: TrialRecord) -> Iterator[dict[str, Any]]:
    for run_id, run in list(server.runs.items()) if server else []:
        if trial.trial_id in run_id:
            losses = {row["epoch"]: row["val_loss"] for row in run.metrics if "val_loss" in row}
            yield {
                "where": run_id,
                "steps": [row["_step"] for row in run.metrics],
                "val_loss": losses,
                "exit_code": run.exit_code,
            }


def _written(results: Path, trial: TrialRecord) -> Iterator[dict[str, Any]]:
    """The runs on disk; the second folder of the best one has its mark and no rows."""
    for path in results.glob(f"wandb/*run-*/run-*{trial.trial_id}*.wandb"):
        run = read_run(path)
        losses = {row["epoch"]: row["val_loss"] for row in run.rows.values() if "val_loss" in row}
        yield {"where": path.name, "steps": sorted(run.rows), "val_loss": losses, "exit_code": run.exit_code}


def _of_model(search: SearchUnderTest, trials: tuple[TrialRecord, ...]) -> Iterator[str]:
    summary_file, manifest_file = search.results / "summary.json", search.results / "best" / "manifest.json"
    if not (summary_file.exists() and manifest_file.exists()):
        yield "summary.json or best/manifest.json is missing"
        return
    summary, manifest = json.loads(summary_file.read_text()), json.loads(manifest_file.read_text())
    models = sorted((search.results / "best").glob("*.pth"))
    best = min(min(epoch["val_loss"] for epoch in trial.epochs) for trial in trials)
    if summary["complete"] is not True or summary["best"]["val_loss"] != best:
        yield f"summary.json has {summary['complete']=} and {summary['best']['val_loss']=}, the best is {best}"
    if [str(path.relative_to(search.results)) for path in models] != [summary["best"]["model"]]:
        yield f"best/ holds {models}, summary.json names {summary['best']['model']}"
        return
    if hashlib.sha256(models[0].read_bytes()).hexdigest() != manifest["sha256"]:
        yield "the best model is not the one of its manifest"
    torchvision.models.resnet18(num_classes=10).load_state_dict(torch.load(models[0], weights_only=True))
