"""Reads all that a report shows from a search's folder: plain files, so neither Ray nor torch nor the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tune_cifar.errors import UserError
from tune_cifar.finalists import Finalist, finalists
from tune_cifar.publish.record import PublishedModel, read_published
from tune_cifar.report.mistakes import Mistakes, load_mistakes
from tune_cifar.report.tables import SUMMARY_FILE
from tune_cifar.results import TrialRecord, best_trial, flatten
from tune_cifar.saved_json import read_json
from tune_cifar.settings import SearchSettings, load_settings
from tune_cifar.sweep.distributions import Constant
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import Metric, SweepConfig
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter
from tune_cifar.trials_file import TRIALS_JSON, State, load_trials

BEST_FOLDER = "best"


@dataclass(frozen=True)
class KeptModel:
    """What a report takes from summary.json of the trial whose model was kept."""

    trial_id: str
    test_accuracy: float
    model: str


@dataclass(frozen=True)
class SummaryFinalist:
    """A configuration that was repeated, by the number of its first trial."""

    number: int
    won: bool


@dataclass(frozen=True)
class SummaryData:
    """The images that the search was run on."""

    name: str
    fingerprint: str
    test_images: int
    train_images: int | None = None
    validation_images: int | None = None


@dataclass(frozen=True)
class Summary:
    """What a report takes from summary.json."""

    best: KeptModel | None
    data: SummaryData
    versions: dict[str, str]
    finalists: tuple[SummaryFinalist, ...] = ()


@dataclass(frozen=True)
class SearchFiles:
    """A search as its files have it. While it is `running` there are no `summary`, `mistakes` and `published`.

    `written_at` is when the trials were last written, in seconds since 1970, or None before the first one started.
    """

    folder: Path
    config: SweepConfig
    settings: SearchSettings
    sweep_text: str
    state: State
    written_at: float | None
    trials: tuple[TrialRecord, ...]
    summary: Summary | None
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
    def kept_model(self) -> KeptModel | None:
        """The model of the best trial, once the search has ended."""
        return self.summary.best if self.summary else None

    @property
    def best(self) -> TrialRecord | None:
        """The trial whose model was kept, or the best one so far."""
        kept = self.kept_model
        if kept:
            return next(trial for trial in self.trials if trial.trial_id == kept.trial_id)
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
    config = load_sweep(sweep_file, check_parameter, EPOCH_METRICS)
    search = SearchFiles(
        folder=folder,
        config=config,
        settings=settings,
        sweep_text=sweep_file.read_text(encoding="utf-8-sig"),
        state=saved.state if saved else "running",
        written_at=saved.written_at if saved else None,
        trials=saved.trials if saved else (),
        # What an interrupted search has written does not hold for the one that goes on from it.
        summary=_read_summary(summary_file) if ended else None,
        mistakes=load_mistakes(folder / BEST_FOLDER) if ended else None,
        published=tuple(read_published(folder)) if ended else (),
    )
    _check_fit(search)
    return search


def _read_summary(path: Path) -> Summary:
    try:
        return read_json(path, Summary)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). A resume of the search writes it again.") from None


def _check_fit(search: SearchFiles) -> None:
    """Raise `UserError` where the files of a search are not of one search."""
    for trial in search.trials:
        config = flatten(trial.config)
        missing = [name for name in search.varied_names if name not in config]
        if missing:
            raise UserError(
                f"{search.folder}: trial {trial.number} in {TRIALS_JSON} has no {missing[0]}, which "
                f"{search.config.path.name} searches. Put the files of one search together."
            )
    kept = search.kept_model
    scored = {trial.trial_id for trial in search.trials if trial.best_epoch(search.metric)}
    if kept and kept.trial_id not in scored:
        raise UserError(
            f"{search.folder}: the best trial of {SUMMARY_FILE}, {kept.trial_id!r}, is not in {TRIALS_JSON} with a "
            f"{search.metric.name}. Put the files of one search together."
        )
