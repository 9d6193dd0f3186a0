"""The callback inside a real Tune run: one trial that succeeds, one that fails, one that diverges."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from tests.tracking.wandb_helpers import FakeTrial, epoch_result, read_run, run_files
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.load import load_sweep
from tune_cifar.tracking.wandb_callback import SearchWandbCallback
from tune_cifar.tracking.wandb_search import make_callback
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter


@pytest.fixture
def small_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def reported(way: str) -> list[dict[str, Any]]:
    results = [epoch_result(epoch) for epoch in (1, 2, 3)]
    if way == "diverges":
        results[-1] |= {"status": "diverged", "message": "val_loss is nan", "val_loss": math.nan}
    else:
        results[-1] |= {"status": "finished", "avg epoch runtime (seconds)": 2.0}
    return results[:1] if way == "fails" else results


def make_trainable() -> Callable[[dict[str, Any]], None]:
    results = {way: reported(way) for way in ("succeeds", "fails", "diverges")}

    def train(config: dict[str, Any]) -> None:
        for result in results[config["way"]]:
            tune.report(result)
        if config["way"] == "fails":
            raise RuntimeError("out of memory")

    return train


def test_a_real_search(fresh_client: None, small_ray: None, tmp_path: Path) -> None:
    callback = SearchWandbCallback(
        project="cifar",
        group="real",
        folder=tmp_path,
        mode="offline",
        log=SearchLog("val_loss"),
        metric="val_loss",
        goal="minimize",
        free_parameters=("way",),
    )
    tuner = tune.Tuner(
        tune.with_resources(make_trainable(), {"cpu": 1}),
        param_space={"way": tune.grid_search(["succeeds", "fails", "diverges"]), "optimizer": {"lr": 0.1}},
        tune_config=tune.TuneConfig(metric="val_loss", mode="min", reuse_actors=True),
        run_config=tune.RunConfig(
            name="real",
            storage_path=str(tmp_path / "storage"),
            callbacks=[callback],
            stop=callback.stop_requested,
            verbose=0,
        ),
    )
    results = tuner.fit()
    assert results.num_errors == 1

    runs = {run.config["way"]: run for run in map(read_run, run_files(tmp_path))}
    assert {way: (run.exit_code, run.summary["status"]) for way, run in runs.items()} == {
        "succeeds": (0, "finished"),
        "fails": (1, "failed"),
        "diverges": (0, "diverged"),
    }
    for way, run in runs.items():
        sent = reported(way)
        assert {step: row["train_loss"] for step, row in run.rows.items()} == {
            step: pytest.approx(loss) for result in sent for step, _, loss in result["train_log"]
        }
        assert run.rows[2]["val_loss"] == 1.5
        assert run.config["optimizer"] == {"lr": 0.1}
        assert run.name.endswith(f"-{way}")
        assert run.group == "real"
    assert runs["diverges"].tags == ["diverged"]
    assert (tmp_path / "storage" / "real").is_dir()


def test_a_resumed_search_which_has_a_copy_of_its_file_keeps_the_notes_of_its_runs(
    fresh_client: None, tmp_path: Path
) -> None:
    folder = tmp_path / "tutorial"
    for name in ("mine.yaml", "sweep.yaml"):
        file = tmp_path / name
        file.write_text("{method: random, parameters: {lr: {min: 0.1, max: 0.2}}}")
        config = load_sweep(file, check_parameter, EPOCH_METRICS)
        callback = make_callback(config, folder, "offline", "digits", SearchLog("val_loss"), ["lr"])
        callback.log_trial_start(FakeTrial(file.stem))
        callback.on_experiment_end([])
    assert {read_run(file).notes for file in run_files(folder)} == {"A trial of the search tutorial on digits"}
