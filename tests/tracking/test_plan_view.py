from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tune_cifar.runner.resources import NodeResources, plan_slots
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.searcher import plan_search
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.tracking.plan_view import print_plan
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter


def _printed(folder: Path, sharing: str | None) -> list[str]:
    path = folder / "sweep.yaml"
    path.write_text("method: grid\nparameters: {batch_size: {values: [16, 32]}}\n")
    config = load_sweep(path, check_parameter, EPOCH_METRICS)
    slots = plan_slots([NodeResources(cpus=16, gpus=1)], gpus_per_trial=0.25)
    plan = plan_search(config, SearchSpace(config), num_trials=None, seed=0, trials_at_once=slots.trials_at_once)
    settings = SearchSettings(
        data="digits",
        train_images=None,
        count=None,
        seed=0,
        cpus_per_trial=None,
        gpus_per_trial=0.25,
        trials_at_once=None,
        precision="auto",
    )
    console = Console(file=io.StringIO(), width=80)
    print_plan(config, plan, slots, settings, folder / "results", console, sharing=sharing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    "sharing", [None, "4 trials a GPU: memory 3.1 GB each; MPS daemon started [at the end stopped]"]
)
def test_trials_that_share_a_gpu_are_told_after_their_number(tmp_path: Path, sharing: str | None) -> None:
    lines = _printed(tmp_path, sharing)
    number = next(index for index, line in enumerate(lines) if line.startswith("at once  "))
    assert lines[number] == "at once  4, each on 1 core and 0.25 GPU (1 GPU(s) and 16 CPU core(s) on 1 machine(s))"
    assert [line for line in lines if line.startswith("sharing")] == ([f"sharing  {sharing}"] if sharing else [])
    assert lines[number + 1].startswith("sharing" if sharing else "data")
