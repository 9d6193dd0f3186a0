"""Reads all that a report shows from a search's folder: plain files, so neither Ray nor torch nor the images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.finalists import Finalist, finalists
from tune_cifar.publish.record import PublishedModel, read_published
from tune_cifar.report.mistakes import Mistakes, load_mistakes
from tune_cifar.report.tables import SUMMARY_FILE
from tune_cifar.results import TrialRecord, best_trial
from tune_cifar.settings import SearchSettings, load_settings
from tune_cifar.sweep.distributions import Constant
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import Metric, SweepConfig
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter
from tune_cifar.trials_file import State, load_trials

BEST_FOLDER = "best"


@dataclass(frozen=True)
class SearchFiles:
    """A search as its files have it. While it is `running`, `summary`, `mistakes` and `published` are empty.

    `written_at` is when the trials were last written, in seconds since 1970, or None before the first one started.
    """

    folder: Path
    config: SweepConfig
    settings: SearchSettings
    sweep_text: str
    state: State
    written_at: float | None
    trials: tuple[TrialRecord, ...]
    summary: Mapping[str, Any]
    mistakes: Mistakes | None
    published: tuple[PublishedModel, ...]

    @property
    def name(self) -> str:
        """The search's name."""
        return self.folder.resolve().name

    @property
    def metric(self) -> Metric:
        """What the search optimizes."""
        return self.config.metric

    @property
    def best(self) -> TrialRecord | None:
        """The trial whose model was kept, or the best one so far."""
        kept = self.summary.get("best")
        if kept:
            return next(trial for trial in self.trials if trial.trial_id == kept["trial_id"])
        return best_trial(self.trials, self.metric)

    @property
    def own_trials(self) -> tuple[TrialRecord, ...]:
        """The trials of the search itself: a repeat differs from one of them in the seed alone."""
        return tuple(trial for trial in self.trials if trial.repeat_of is None)

    @property
    def varied_names(self) -> list[str]:
        """The dotted names of the parameters that the sweep file does not hold constant, in its order."""
        varied = (p for p in self.config.parameters if not isinstance(p.distribution, Constant))
        return [".".join(parameter.path) for parameter in varied]

    @property
    def finalists(self) -> list[Finalist]:
        """The configurations that were trained with several seeds, the best first."""
        return finalists(self.trials, self.metric)

    @property
    def planned_trials(self) -> int | None:
        """How many trials were asked for, where a flag or the sweep file says so."""
        return self.settings.count or self.config.run_cap


def read_search(folder: Path) -> SearchFiles:
    """Read the search in `folder`, ended or not; raises `UserError` where there is none."""
    settings, sweep_file = load_settings(folder)
    saved = load_trials(folder)
    summary_file = folder / SUMMARY_FILE
    if saved is None and summary_file.is_file():
        raise UserError(f"{folder} has no trials.json: it was written by a version that did not keep learning curves.")
    ended = saved is not None and saved.state != "running"
    return SearchFiles(
        folder=folder,
        config=load_sweep(sweep_file, check_parameter, EPOCH_METRICS),
        settings=settings,
        sweep_text=sweep_file.read_text(),
        state=saved.state if saved else "running",
        written_at=saved.written_at if saved else None,
        trials=saved.trials if saved else (),
        # What an interrupted search has written does not hold for the one that goes on from it.
        summary=_read_summary(summary_file) if ended else {},
        mistakes=load_mistakes(folder / BEST_FOLDER) if ended else None,
        published=tuple(read_published(folder)) if ended else (),
    )


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from None
    return summary
