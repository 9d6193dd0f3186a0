"""Real searches whose trials train nothing and meet what a test wants them to meet."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.limits import RunLimits
from tune_cifar.results import TrialRecord
from tune_cifar.runner import tuning
from tune_cifar.runner.early_stopping import StopRequested
from tune_cifar.runner.outcome import SearchOutcome
from tune_cifar.runner.resources import TrialSlots
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.searcher import plan_search
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

EPOCHS = 3

Befall = Callable[[int, int, int], None]
"""What happens to the trial of a seed, in an attempt from 1 on, before it reports an epoch; 0 is before the first."""


@dataclass(frozen=True)
class StubSearch:
    """What came of a search: its outcome, the lines it said, and the attempts of each seed as the trials noted them."""

    outcome: SearchOutcome
    lines: list[str]
    attempts: dict[int, list[dict[str, Any]]]
    callbacks: list[Any]

    def trial(self, seed: int) -> TrialRecord:
        """The record of a seed's trial."""
        return next(trial for trial in self.outcome.trials if trial.config["seed"] == seed)


def make_trial(folder: Path, befall: Befall, epoch_seconds: float) -> Callable[..., None]:
    """A function in place of `train_trial`; made here, so that it goes to Ray's processes by value."""

    def stub_trial(
        parameters: dict[str, Any], *, data: Any, metric: str, cpu_threads: int, board: Any = None, **_: Any
    ) -> None:
        import json
        import tempfile
        import time
        from pathlib import Path

        import ray
        from ray import tune

        seed, last = parameters["seed"], 0
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as saved:
                last = int(Path(saved, "epoch").read_text())
        attempt = len(list(folder.glob(f"{seed}-*.json"))) + 1
        path = folder / f"{seed}-{attempt}.json"
        facts = {"node": ray.get_runtime_context().get_node_id(), "last_epoch": last, "start": time.time()}
        path.write_text(json.dumps(facts))
        try:
            befall(seed, attempt, 0)
            for epoch in range(last + 1, 4):
                time.sleep(epoch_seconds)
                befall(seed, attempt, epoch)
                rows = ((2 * epoch - 1, epoch - 0.5, 1.0), (2 * epoch, float(epoch), 0.5))
                result = {
                    "epoch": epoch,
                    "step": 2 * epoch,
                    "train_log": rows,
                    "train_loss": 0.5,
                    "val_loss": seed + 1 / epoch,
                    "val_accuracy": 0.5,
                    "epoch_runtime (seconds)": epoch_seconds,
                    "status": "finished" if epoch == 3 else "running",
                    "done": epoch == 3,
                }
                with tempfile.TemporaryDirectory() as temporary:
                    Path(temporary, "epoch").write_text(str(epoch))
                    tune.report(result, checkpoint=tune.Checkpoint.from_directory(temporary))
        finally:
            # In one go: a search that ends kills this process, maybe just now, and the test reads what is there.
            ended = folder / f".{seed}-{attempt}.partial"
            ended.write_text(json.dumps({**facts, "end": time.time()}))
            ended.replace(path)

    return stub_trial


def run_stub_search(
    folder: Path,
    befall: Befall,
    monkeypatch: pytest.MonkeyPatch,
    *,
    slots: TrialSlots,
    num_trials: int,
    max_failures: int = 2,
    epoch_seconds: float = 0.05,
    callbacks: Callable[[SearchLog], list[Any]] = lambda log: [],
    limits: RunLimits | None = None,
    stop_requested: StopRequested = lambda trial_id, result: False,
) -> StubSearch:
    """Run trials with the seeds from 1 on in order, on the Ray that is running."""
    attempts = folder / "attempts"
    attempts.mkdir()
    monkeypatch.setattr(tuning, "train_trial", make_trial(attempts, befall, epoch_seconds))
    # There are no weights to be found in a stub's checkpoints.
    sweep = folder / "sweep.yaml"
    seeds = list(range(1, num_trials + 1))
    sweep.write_text(
        "method: grid\nmetric: {name: val_loss, goal: minimize}\n"
        f"parameters: {{seed: {{values: {seeds}}}, epochs: {{value: {EPOCHS}}}}}\n"
    )
    config = load_sweep(sweep, check_parameter, EPOCH_METRICS)
    space = SearchSpace(config)
    plan = plan_search(config, space, num_trials=None, seed=0, trials_at_once=slots.trials_at_once)
    log = SearchLog("val_loss")
    lines: list[str] = []
    trackers = callbacks(log)
    outcome = tuning.run_search(
        folder=folder,
        config=config,
        space=space,
        plan=plan,
        data=_no_data(),
        slots=slots,
        constants={},
        log=log,
        callbacks=trackers,
        stop_requested=stop_requested,
        resume=False,
        max_failures=max_failures,
        say=lines.append,
        limits=limits,
    )
    noted = {seed: [json.loads(path.read_text()) for path in sorted(attempts.glob(f"{seed}-*.json"))] for seed in seeds}
    return StubSearch(outcome, lines, noted, trackers)


def _no_data() -> Any:
    import numpy as np

    from tune_cifar.trial.data import ImageDataset, ImageSplit

    nothing = ImageSplit(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, np.int64))
    return ImageDataset("nothing", ("one",), nothing, nothing, nothing, "sha256:nothing")
