"""The two places where Tune asks what goes on, so that a search that ends starts no trial and holds running ones."""

from __future__ import annotations

import copy
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import ConcurrencyLimiter as TuneLimiter
from ray.tune.search import Searcher

from tune_cifar.runner.bucket_syncer import keep_state_in_bucket
from tune_cifar.runner.ending import SearchEnding
from tune_cifar.runner.given_up import GivenUpCheckpoints
from tune_cifar.runner.retrying import RetryingScheduler
from tune_cifar.runner.snapshots import pace_snapshots
from tune_cifar.runner.whole_state import keep_state_whole


class ConcurrencyLimiter(TuneLimiter):  # type: ignore[misc]  # Ray has no types
    """Tune's limiter, which asks for no new trial while the search ends; Tune saves its state under this name."""

    def __init__(self, searcher: Searcher, max_concurrent: int, ending: SearchEnding) -> None:
        super().__init__(searcher, max_concurrent)
        self._ending = ending

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next config, or None for now."""
        # With no trial at all Tune would wait here for ten minutes: it gets one, and the loop ends before that starts.
        if self.live_trials and not self._ending.admits_trials():
            return None
        suggestion: dict[str, Any] | str | None = super().suggest(trial_id)
        return suggestion

    def get_state(self) -> dict[str, Any]:
        """What Tune's own saves."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("searcher", "_ending")}
        return copy.deepcopy(kept)


class HoldingScheduler(RetryingScheduler):
    """A `RetryingScheduler` that lets a trial wait after its epoch while the search ends.

    It also gives Tune's storage its syncer, because it is the first of ours to see Tune's controller.
    """

    def __init__(self, *args: Any, ending: SearchEnding, given_up: GivenUpCheckpoints, **options: Any) -> None:
        super().__init__(*args, **options)
        self._ending = ending
        self._given_up_checkpoints = given_up

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Tune has a new trial, or one of the search that is resumed."""
        controller = tune_controller._tune_controller
        storage = controller._storage
        if isinstance(storage.storage_filesystem, LocalFileSystem):
            self._ending.syncer = keep_state_whole(storage, self._given_up_checkpoints)
        else:
            keep_state_in_bucket(storage, self._say, self._given_up_checkpoints)
        pace_snapshots(controller._checkpoint_manager, storage.syncer)
        # Nobody reads the means of the last 5 and 10 epochs of each metric, half of what a snapshot costs.
        trial.run_metadata._n_steps = ()
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop the trial, let it go on, or leave it as it is."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.CONTINUE and result["status"] == "running" and self._ending.holds(trial):
            return str(TrialScheduler.NOOP)
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next trial to start, if any may."""
        return None if self._ending.cause else super().choose_trial_to_run(tune_controller)
