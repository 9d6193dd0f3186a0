"""Measures how long a Bayesian suggestion takes, by what the model knows: completed trials and those that still run.

`python benchmarks/suggestions.py` asks the searcher of the tutorial's space, on one core, and the Gaussian process
alone where the searcher would ask its quick model; they set `tune_cifar.sweep.sampler.MOST_MODEL_TRIALS`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import optuna
import torch
from optuna.trial import TrialState, create_trial

from benchmarks.machine import REPOSITORY, describe_machine
from tune_cifar.sweep import sampler as sampler_module
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.sampler import ModelSampler, SweepSampler, is_much_to_know
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

CASES = ((10, 0), (50, 4), (200, 0), (200, 8), (200, 64), (500, 8), (600, 0), (200, 512), (950, 8), (488, 512))


def suggestion_seconds(
    space: SearchSpace, completed: int, running: int, repeats: int, *, gp_alone: bool
) -> list[float]:
    """Seconds of each of `repeats` suggestions, after one that warms up."""
    sampler, random = ModelSampler(space, 0), SweepSampler(space, 1)
    study = optuna.create_study(sampler=sampler)
    noise = np.random.default_rng(0)
    for number in range(completed + running):
        point = random.propose(study, None)  # type: ignore[arg-type]  # a draw looks at no trial
        told: dict[str, Any] = {"state": TrialState.RUNNING}
        if number < completed:
            told = {"value": 1 + (math.log10(space.decode(point)["lr"]) + 2.2) ** 2 + noise.normal(0, 0.02)}
        study.add_trial(create_trial(params=point, distributions=space.distributions, **told))
    seconds = []
    most = math.inf if gp_alone else sampler_module.MOST_MODEL_TRIALS
    with patch.object(sampler_module, "MOST_MODEL_TRIALS", most):
        for _ in range(repeats + 1):
            start = time.perf_counter()
            trial = study.ask(fixed_distributions=space.distributions)
            seconds.append(time.perf_counter() - start)
            study.tell(trial, state=TrialState.FAIL)  # so that no more trials run than before
    return seconds[1:]


def main() -> None:
    """Print a row a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", type=int, help="only so many of the cases, the smallest first")
    parser.add_argument("--json", type=Path, help="also write all figures there")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    space = SearchSpace(load_sweep(REPOSITORY / "configs" / "sweep.yaml", check_parameter, EPOCH_METRICS))
    rows = []
    print("| completed | running | model | seconds a suggestion: median (least to most) |\n|---|---|---|---|")
    for completed, running in CASES[: args.cases]:
        quick = is_much_to_know(completed, running)
        for gp_alone in (False, True) if quick else (False,):
            taken = suggestion_seconds(space, completed, running, args.repeats, gp_alone=gp_alone)
            model = "TPE" if quick and not gp_alone else "Gaussian process"
            spread = f"{statistics.median(taken):.3f} ({min(taken):.3f} to {max(taken):.3f})"
            print(f"| {completed} | {running} | {model} | {spread} |", flush=True)
            rows.append({"completed": completed, "running": running, "model": model, "seconds": taken})
    if args.json:
        document = {"machine": describe_machine(torch.device("cpu")), "rows": rows}
        args.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
