"""Has Tune take up the state of an earlier process, or stop: it would start over where it cannot (ray 2.60)."""

from __future__ import annotations

from typing import Any

from ray import tune

from tune_cifar.runner.places import TunePlace


class RestoreGuard(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Ends the search at `place` before its first step where Tune has failed to restore what it `expects` to.

    The callbacks' state is the last that Tune restores, so if this one has its own back then nothing before failed.
    It stands first among them: what comes after it may show or write something.
    """

    def __init__(self, place: TunePlace, *, expects: bool) -> None:
        self._place = place
        self._is_missing = expects

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a guard belongs to one process."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """What Tune writes into its snapshot."""
        return {"whole": True}

    def set_state(self, state: dict[str, Any]) -> None:
        """Tune has restored all there is."""
        self._is_missing = False

    def setup(self, *args: Any, **info: Any) -> None:
        """Tune is about to begin, with its state or, if that cannot be had, without."""
        if self._is_missing:
            raise self._place.cannot_resume(f"Ray cannot take up its state in {self._place.shown}")


def restore(place: TunePlace, trainable: Any, tune_config: tune.TuneConfig, run_config: tune.RunConfig) -> tune.Tuner:
    """A Tuner that goes on with the search at `place`; a `RestoreGuard` has to stand among the callbacks.

    It runs what is pickled in the folder, as Ray has no other way. Raises `UserError` for a damaged state.
    """
    try:
        tuner = tune.Tuner.restore(place.tune_path, trainable=trainable, storage_filesystem=place.filesystem)
    except Exception as error:  # what unpickling damaged data raises can be anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise place.cannot_resume(f"{place.shown}/tuner.pkl is damaged ({reason})") from None
    # Tune would go on with the objects it pickled at the first start. Those of this process (its terminal, its
    # W&B mode, one log for all of them) take their place; the log and the W&B callback get their state through
    # `set_state`, the searcher its own from the files that Tune saved.
    tuner._local_tuner._run_config.callbacks = run_config.callbacks
    tuner._local_tuner._tune_config.scheduler = tune_config.scheduler
    tuner._local_tuner._tune_config.search_alg = tune_config.search_alg
    return tuner
