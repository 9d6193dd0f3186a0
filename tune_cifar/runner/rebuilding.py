"""Writes Tune's state anew from what the trials left behind, so that a search goes on whose state is lost.

Tune's own controller writes it, with the trials put into it as they were, and the search is then resumed from it as
any other: trials keep their numbers, ids, folders and checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial
from ray.tune.experiment.config_parser import _create_trial_from_spec
from ray.tune.search import ConcurrencyLimiter, Searcher, SearchGenerator
from ray.tune.utils import flatten_dict

from tune_cifar.results import CAN_WIN, TrialRecord, best_trial
from tune_cifar.runner.known_trials import KnownTrial, read_known_trials
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.runner.searcher import SweepSearch
from tune_cifar.runner.tune_state import TUNE_FOLDER, note_versions, set_aside
from tune_cifar.sweep.schema import Metric


@runtime_checkable
class Recalling(Protocol):
    """A callback that has to know the trials of an earlier process."""

    def recall(self, record: TrialRecord, results: Sequence[Mapping[str, Any]]) -> None:
        """Take in a trial and what Tune reported of each of its epochs."""


def rebuild_state(
    folder: Path,
    trainable: Any,
    constants: Mapping[str, Any],
    tune_config: tune.TuneConfig,
    run_config: tune.RunConfig,
    *,
    log: SearchLog,
    metric: Metric,
    say: Callable[[str], None],
) -> None:
    """Write Tune's state of the search in `folder` anew; the old one is kept in a folder of its own beside it.

    A trial that has ended counts as ended; another goes on from the last checkpoint that is whole. The searcher of
    `tune_config` and the callbacks of `run_config`, `log` among them, are told of all of them; `say` gets lines.
    """
    known, lines = read_known_trials(folder, metric, log.repeats)
    known = [_again(trial) if _has_to_be_trained_again(trial, known, metric) else trial for trial in known]
    aside = set_aside(folder / TUNE_FOLDER)
    for line in [*lines, *([f"Ray's old state is kept in {aside}"] if aside else []), *map(_describe, _open(known))]:
        say(f"rebuild  {line}")
    note_versions(folder / TUNE_FOLDER)
    tuner = tune.Tuner(trainable, param_space=dict(constants), tune_config=tune_config, run_config=run_config)
    arguments = tuner._local_tuner._get_tune_run_arguments(tuner._local_tuner.converted_trainable)
    passed_on = ("storage_path", "checkpoint_config", "max_failures", "trial_name_creator", "trial_dirname_creator")
    experiment = Experiment(
        TUNE_FOLDER,
        tuner._local_tuner.converted_trainable,
        config=dict(constants),
        num_samples=tune_config.num_samples,
        **{name: arguments[name] for name in passed_on},
    )
    search = SearchGenerator(tune_config.search_alg)
    search.add_configurations([experiment])
    controller = TuneController(
        search_alg=search,
        callbacks=run_config.callbacks,
        trial_checkpoint_config=experiment.spec["checkpoint_config"],
        storage=experiment.storage,
    )
    log.trials = {trial.record.trial_id: trial.record for trial in known}
    for trial in known:
        controller.add_trial(_tune_trial(trial, experiment, search))
        for callback in run_config.callbacks or []:
            if isinstance(callback, Recalling):
                callback.recall(trial.record, trial.results)
    for line in _tell_searchers(search, [trial.record for trial in known]):
        say(f"rebuild  {line}")
    controller.checkpoint(force=True, wait=True)
    controller.cleanup()
    ended = sum(trial.has_ended for trial in known)
    say(f"rebuild  {ended} {'trial has' if ended == 1 else 'trials have'} ended and will not run again")


def _open(known: Sequence[KnownTrial]) -> list[KnownTrial]:
    return [trial for trial in known if not trial.has_ended]


def _has_to_be_trained_again(trial: KnownTrial, known: Sequence[KnownTrial], metric: Metric) -> bool:
    """Whether a trial may give the search's model but has no weights any more, lost together with the state perhaps.

    Of single trials only the best can; where the best are repeated, the mean of any of them.
    """
    epoch = trial.record.best_epoch(metric)
    if trial.record.status not in CAN_WIN or epoch is None or epoch["epoch"] in trial.checkpoints:
        return False
    records = [other.record for other in known]
    return best_trial(records, metric) is trial.record or any(record.repeat_of for record in records)


def _again(trial: KnownTrial) -> KnownTrial:
    return replace(trial, record=replace(trial.record, status="waiting"), checkpoints={})


def _describe(trial: KnownTrial) -> str:
    epoch = max(trial.checkpoints, default=0)
    return f"trial {trial.record.number} {f'goes on after epoch {epoch}' if epoch else 'starts from its beginning'}"


def _tune_trial(known: KnownTrial, experiment: Experiment, search: SearchGenerator) -> Trial:
    """The trial as Tune would have it in its list."""
    record = known.record
    trial = _create_trial_from_spec(
        {**experiment.spec, "config": record.config},
        search._parser,
        evaluated_params=flatten_dict(record.config),
        experiment_tag=str(record.number),
        trial_id=record.trial_id,
    )
    trial.init_local_path()
    for result in known.results:
        trial.update_last_result(dict(result, trial_id=record.trial_id))
    filesystem = experiment.storage.storage_filesystem
    results = {result["epoch"]: result for result in known.results}
    for epoch, path in known.checkpoints.items():
        checkpoint = tune.Checkpoint(str(path.resolve()), filesystem=filesystem)
        trial.run_metadata.checkpoint_manager.register_checkpoint(_TrainingResult(checkpoint, results[epoch]))
        trial.storage.current_checkpoint_index = int(path.name.rpartition("_")[2])
    trial.run_metadata.num_failures = record.failures
    ends = {"failed": Trial.ERROR}
    trial.set_status(ends.get(record.status, Trial.TERMINATED) if known.has_ended else Trial.PENDING)
    return trial


def _tell_searchers(search: SearchGenerator, records: Sequence[TrialRecord]) -> list[str]:
    """Bring every searcher in the chain to where it was; returns lines on what it could not be told."""
    lines: list[str] = []
    search._counter = len(records)
    searcher: Searcher | None = search.searcher
    while searcher is not None:
        if isinstance(searcher, ConcurrencyLimiter):
            waiting = {record.trial_id for record in records if record.status == "waiting"}
            searcher.live_trials |= waiting
            searcher.num_unfinished_live_trials += len(waiting)
        if isinstance(searcher, SweepSearch):
            lines += searcher.recall([record for record in records if record.repeat_of is None])
        searcher = getattr(searcher, "searcher", None)
    return lines
