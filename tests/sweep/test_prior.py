from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.errors import UserError
from tune_cifar.sweep.prior import PRIOR_FILE, Prior, load_prior, read_prior, save_prior
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.sweep.searcher import PriorTrial, plan_search
from tune_cifar.sweep.space import SearchSpace

SWEEP = """method: bayes
metric: {name: val_loss}
parameters:
  lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
  batch_size: {values: [32, 64, 128]}
  optimizer: {parameters: {momentum: {values: [0.0, 0.9]}}}
  model: {values: [ResNet18, ResNet34]}
  epochs: {value: 5}
"""
GOOD = {
    "lr": 0.001,
    "batch_size": 64,
    "optimizer": {"momentum": 0.9},
    "model": "ResNet34",
    "epochs": 5,
}

ReadPrior = Callable[..., Prior]


@pytest.fixture
def prior_of(read_sweep: Callable[..., SweepConfig], tmp_path: Path) -> ReadPrior:
    """The prior of W&B runs: `(config, val_loss or summary, state)`."""

    def read(*runs: tuple[Mapping[str, Any], Any, str], text: str = SWEEP) -> Prior:
        config = read_sweep(text)
        rows = [
            {"config": c, "summary": s if isinstance(s, dict) else {"val_loss": s}, "state": state}
            for c, s, state in runs
        ]
        path = tmp_path / "runs.json"
        path.write_text(json.dumps(rows))
        return read_prior([path], config, SearchSpace(config), {})

    return read


def test_a_fitting_trial_becomes_a_point_of_the_space(prior_of: ReadPrior, tmp_path: Path) -> None:
    prior = prior_of((GOOD, 0.4, "finished"))
    point = {"lr": pytest.approx(0.001), "batch_size": 1, "optimizer/momentum": 1, "model": 1}
    assert prior.trials == (PriorTrial(point, 0.4),)
    assert prior.lines == (f"1 trial of {tmp_path / 'runs.json'}",)
    assert prior.warnings == ()


def test_numbers_of_another_type_and_other_groups_are_understood(prior_of: ReadPrior) -> None:
    texts = {"lr": "0.0010", "sgd": {"momentum": "0.90"}, "batch_size": "64.0", "model": "ResNet34", "epochs": 5.0}
    assert prior_of((texts, "0.4", "finished")).trials == prior_of((GOOD, 0.4, "finished")).trials


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lr": 0.02}, "with lr outside 0.0001 to 0.01"),
        ({"lr": "fast"}, "with lr outside 0.0001 to 0.01"),
        ({"lr": None}, "without lr"),
        ({"batch_size": 48}, "with batch_size other than 32 or 64 or 128"),
        ({"model": "VGG16"}, "with model other than ResNet18 or ResNet34"),
        ({"optimizer": {}}, "without optimizer.momentum"),
        ({"optimizer": {"a": {"momentum": 0.9}, "b": {"momentum": 0.9}}}, "without optimizer.momentum"),
        ({"epochs": 6}, "with epochs other than 5"),
        ({"epochs": ""}, "without epochs"),
    ],
)
def test_a_trial_that_does_not_fit_is_left_out_with_the_reason(
    prior_of: ReadPrior, change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    prior = prior_of((GOOD, 0.4, "finished"), (GOOD | change, 0.3, "finished"))
    assert len(prior.trials) == 1
    assert prior.lines == (f"1 trial of {tmp_path / 'runs.json'}; 1 left out: 1 {reason}",)


def test_what_is_left_out_is_counted_by_reason(prior_of: ReadPrior, tmp_path: Path) -> None:
    out = GOOD | {"lr": 0.02}
    runs = [(GOOD, 0.4, "finished"), (out, 0.3, "finished"), (GOOD, None, "finished"), (out, 0.3, "killed")]
    runs += [(GOOD, 0.2, "running"), (GOOD, 0.5, "finished")]
    assert prior_of(*runs).lines == (
        f"2 trials of {tmp_path / 'runs.json'}; 4 left out: 2 with lr outside 0.0001 to 0.01, 1 without val_loss, "
        "1 that had not ended",
    )


def test_the_best_value_counts_where_the_file_has_it(prior_of: ReadPrior) -> None:
    summaries = [{"val_loss": 0.5, "best_val_loss": 0.3}, {"val_loss": {"min": 0.2, "max": 0.9}}, {"val_loss": 0.4}]
    prior = prior_of(*((GOOD, summary, "finished") for summary in summaries))
    assert [trial.value for trial in prior.trials] == [0.3, 0.2, 0.4]


@pytest.mark.parametrize(
    ("impute", "goal", "values"),
    [("worst", "minimize", [0.4, 0.9, 0.9, 0.9]), ("worst", "maximize", [0.4, 0.9, 0.3, 0.3]),
     ("best", "minimize", [0.4, 0.9, 0.3, 0.9])],
)  # fmt: skip
def test_failed_trials_count_as_the_file_says(prior_of: ReadPrior, impute: str, goal: str, values: list[float]) -> None:
    metric = f"{{name: val_loss, impute: {impute}, goal: {goal}}}"
    runs = [(GOOD, 0.4, "finished"), (GOOD, 0.9, "finished"), (GOOD, 0.3, "failed"), (GOOD, None, "crashed")]
    prior = prior_of(*runs, text=SWEEP.replace("{name: val_loss}", metric))
    assert [trial.value for trial in prior.trials] == values


def test_failed_trials_alone_teach_nothing(prior_of: ReadPrior, tmp_path: Path) -> None:
    prior = prior_of((GOOD, None, "failed"), (GOOD, "NaN", "crashed"))
    assert prior.trials == prior.lines == ()
    assert prior.warnings == (
        f"--prior {tmp_path / 'runs.json'}: no trial to learn from; 2 left out: 2 that failed. The search goes on.",
    )


def test_a_file_without_trials_is_a_warning(prior_of: ReadPrior) -> None:
    assert prior_of().warnings[0].endswith("no trial to learn from; it holds none. The search goes on.")


def test_parameters_that_only_the_earlier_search_had_and_constant_seeds_do_not_matter(prior_of: ReadPrior) -> None:
    text = SWEEP + "  seed: {value: 3}\n"
    assert len(prior_of((GOOD | {"dropout": 0.5, "seed": 9}, 0.4, "finished"), text=text).trials) == 1


OWN = "number,id,status,repeat_of,batch_size,lr,model,epochs,best_val_loss,best_epoch,val_accuracy,message\n"


def test_our_own_table_means_the_defaults_where_it_is_silent(
    read_sweep: Callable[..., SweepConfig], tmp_path: Path
) -> None:
    config = read_sweep(SWEEP)
    (tmp_path / "trials.csv").write_text(
        OWN + "1,a,finished,,64,0.001,ResNet34,5,0.4,4,0.9,\n2,b,stopped,,64,0.001,ResNet34,5,0.4,4,0.9,\n"
        "3,c,finished,1,64,0.001,ResNet34,5,0.45,4,0.9,\n"
    )
    prior = read_prior([tmp_path], config, SearchSpace(config), {"momentum": 0.9, "epochs": 10})
    assert [trial.value for trial in prior.trials] == [0.4, 0.4, 0.45]
    assert prior.trials[0].point["optimizer/momentum"] == 1
    prior = read_prior([tmp_path], config, SearchSpace(config), {"momentum": 0.5})
    assert prior.warnings[0].startswith(f"--prior {tmp_path}: no trial to learn from; 3 left out: 3 with optimizer.")


def test_several_files_have_a_line_each(read_sweep: Callable[..., SweepConfig], tmp_path: Path) -> None:
    config = read_sweep(SWEEP)
    paths = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for path, configs in zip(paths, ([GOOD], [], [GOOD, GOOD]), strict=True):
        path.write_text(json.dumps([{"config": c, "summary": {"val_loss": 1}} for c in configs]))
    prior = read_prior(paths, config, SearchSpace(config), {})
    assert len(prior.trials) == 3
    assert prior.lines == (f"1 trial of {paths[0]}", f"2 trials of {paths[2]}")
    assert len(prior.warnings) == 1


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (SWEEP.replace("bayes", "random"), "`method: random`"),
        ("method: grid\nparameters: {lr: {values: [1, 2]}}\n", "`method: grid`"),
        ("method: bayes\nmetric: {name: val_loss}\nparameters: {lr: {value: 1}}\n", "no free parameter"),
    ],
)
def test_only_a_model_can_be_warmed(read_sweep: Callable[..., SweepConfig], text: str, has: str) -> None:
    config = read_sweep(text)
    with pytest.raises(UserError, match=r"--prior warms the model of `method: bayes`, but .*sweep.yaml has " + has):
        read_prior([Path("missing")], config, SearchSpace(config), {})


@pytest.fixture
def space(read_sweep: Callable[..., SweepConfig]) -> SearchSpace:
    return SearchSpace(read_sweep(SWEEP))


def test_a_prior_is_kept_as_it_was(prior_of: ReadPrior, tmp_path: Path, space: SearchSpace) -> None:
    prior = prior_of((GOOD, 0.4, "finished"), (GOOD, None, "finished"))
    save_prior(tmp_path, prior)
    assert load_prior(tmp_path, space) == prior


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"trials": [{"a": 1}], "lines": [], "warnings": []}'])
def test_a_damaged_prior_is_named(tmp_path: Path, space: SearchSpace, text: str | None) -> None:
    if text is not None:
        (tmp_path / PRIOR_FILE).write_text(text)
    with pytest.raises(UserError, match=r"prior\.json cannot be read .* Start the search again under another --name"):
        load_prior(tmp_path, space)


@pytest.mark.parametrize(
    "change", [{"lr": 0.02}, {"lr": "0.001"}, {"lr": True}, {"lr": None}, {"batch_size": 9}, {"model": [1]}, {"x": 1}]
)
def test_a_kept_trial_of_another_space_is_named(
    prior_of: ReadPrior, tmp_path: Path, space: SearchSpace, change: dict[str, Any]
) -> None:
    prior = prior_of((GOOD, 0.4, "finished"), (GOOD, 0.3, "finished"))
    prior.trials[1].point.update(change)
    save_prior(tmp_path, prior)
    with pytest.raises(UserError, match=r"prior\.json cannot be read \(trials\[1\] is no trial of the sweep file's"):
        load_prior(tmp_path, space)


@pytest.mark.parametrize(("num_prior", "num_start"), [(0, 5), (1, 4), (3, 2), (5, 0), (40, 0)])
def test_each_prior_trial_saves_a_start_point(
    read_sweep: Callable[..., SweepConfig], prior_of: ReadPrior, num_prior: int, num_start: int
) -> None:
    text = SWEEP.replace("ResNet18, ", "")  # three free parameters and a list of one
    text = text.replace("  model: {values: [ResNet34]}\n", "")
    config = read_sweep(text)
    space = SearchSpace(config)
    known = prior_of(*[(GOOD, 0.4, "finished")] * num_prior, text=text).trials
    plan = plan_search(config, space, num_trials=10, seed=0, trials_at_once=1, prior_trials=known)
    undisturbed = plan_search(config, space, num_trials=10, seed=0, trials_at_once=1)
    assert plan.start_points == undisturbed.start_points[:num_start]
    assert plan.prior_trials == known
    spread = f"{num_start} spread evenly, then " if num_start else ""
    knows = f", which knows {num_prior} prior trial{'s' * (num_prior > 1)}" if num_prior else ""
    assert plan.reason == f"10 trials: {spread}by Gaussian process{knows} (--count)"
