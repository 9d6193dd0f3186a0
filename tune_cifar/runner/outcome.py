"""What a search has come to once Tune has ended: the part that reports and publishing are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray import tune

from tune_cifar.errors import UserError
from tune_cifar.finalists import Finalist, finalists, repeats_have_ended
from tune_cifar.limits import EarlyEnd
from tune_cifar.results import ENDED, TrialRecord, best_run, best_trial
from tune_cifar.runner.ending import SearchEnding
from tune_cifar.runner.places import TunePlace
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.runner.tune_state import TUNE_FOLDER
from tune_cifar.sweep.schema import Metric
from tune_cifar.sweep.searcher import SearchPlan


@dataclass(frozen=True)
class SearchOutcome:
    """All trials, the best finished one and its weights file, and whether trials are left for a resume.

    Where the best configurations were repeated, `finalists` are these, the best first. Once all repeats have ended
    `winner` is the first of them, and `best` is its best run. `early_end` says how a search ended that has trials
    left. `stopped_because` says why a search that could not go on was stopped, which is an interruption too; else it
    is empty.
    """

    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None
    best_weights: Path | None
    interrupted: bool
    early_end: EarlyEnd | None = None
    finalists: tuple[Finalist, ...] = ()
    winner: Finalist | None = None
    stopped_because: str = ""


def outcome_of(
    log: SearchLog,
    plan: SearchPlan,
    metric: Metric,
    grid: tune.ResultGrid | None,
    place: TunePlace,
    ending: SearchEnding,
    stopped_because: str,
) -> SearchOutcome:
    """What the search in `log` has come to; `grid` is None where the disk broke, and with it Tune."""
    trials = tuple(sorted(log.trials.values(), key=lambda trial: trial.number))
    own = [trial for trial in trials if trial.repeat_of is None]
    complete = sum(trial.status in ENDED for trial in own) >= plan.num_trials or _target_ended_it(own, metric)
    complete = complete and (log.repeats is None or repeats_have_ended(trials, metric, log.repeats))
    complete = complete and not stopped_because
    repeated = finalists(trials, metric)
    winner = repeated[0] if repeated and complete else None
    best = best_run(winner.runs, metric) if winner else best_trial(trials, metric)
    return SearchOutcome(
        trials=trials,
        best=best,
        best_weights=_weights_of(best, metric, grid, place) if best and grid else None,
        interrupted=not complete,
        early_end=None if complete else ending.early_end,
        finalists=tuple(repeated),
        winner=winner,
        stopped_because=stopped_because,
    )


def _target_ended_it(trials: Sequence[TrialRecord], metric: Metric) -> bool:
    reached = any(metric.reached(value) for trial in trials for value in trial.logged_values)
    return reached and all(trial.status in ENDED for trial in trials)


def _weights_of(best: TrialRecord, metric: Metric, grid: tune.ResultGrid, place: TunePlace) -> Path:
    """The weights file of the best epoch, in Tune's storage."""
    epoch = best.best_epoch(metric) or {}
    for result in grid:
        if result.metrics and result.metrics.get("trial_id") == best.trial_id:
            for checkpoint, metrics in result.best_checkpoints:
                if metrics["epoch"] == epoch.get("epoch"):
                    return place.weights_of(checkpoint)
    raise UserError(
        f"trial {best.number} is the best, but its weights after epoch {epoch.get('epoch')} are no longer in "
        f"{TUNE_FOLDER}/trial-{best.trial_id}. `--resume --rebuild` trains it again."
    )
