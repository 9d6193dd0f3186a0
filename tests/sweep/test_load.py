# ruff: noqa: E501 - the tables have a row a line

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.errors import UserError
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import CurveStopping, Hyperband, Metric, SweepConfig
from tune_cifar.trial.config import check_parameter

CONFIGS = Path(__file__).parents[2] / "configs"
SPACE = "parameters: {lr: {min: 0.001, max: 0.1}}\n"
HEAD = f"method: random\nmetric: {{name: val_loss}}\n{SPACE}"

Read = Callable[..., SweepConfig]
Problems = Callable[..., list[str]]


def test_reads_a_whole_file(read_sweep: Read) -> None:
    config = read_sweep(
        "method: grid\nname: n\ndescription: d\nproject: p\nentity: e\nrun_cap: 7.0\n"
        "metric: {name: val_accuracy, goal: maximize, target: 0.9, impute: latest, impute_while_running: best}\n"
        "early_terminate: {type: hyperband, max_iter: 27, s: 2, eta: 4, strict: false}\n"
        "parameters: {lr: {values: [0.1]}}\n"
        "program: train.py\ncommand: [python, x]\ncontroller: {type: cloud}\njob: j\nimage_uri: i\n"
        "kind: sweep\napiVersion: v1\n"
    )
    assert (config.method, config.name, config.description) == ("grid", "n", "d")
    assert (config.project, config.entity, config.run_cap) == ("p", "e", 7)
    assert config.metric == Metric("val_accuracy", "maximize", 0.9, "latest")
    assert config.early_terminate == Hyperband(None, 27, 2, 4.0, strict=False)
    assert config.warnings == ()
    assert config.notes == (
        "metric.impute_while_running is not used: `bayes` accounts for running trials by itself.",
        "Not used: program, command, controller, job, image_uri "
        "(steers W&B's agents and launch queues; trials are started here).",
        "Not used: kind, apiVersion (names the file format).",
    )
    assert config.document["metric"]["impute_while_running"] == "best"


def test_fills_in_what_wandb_fills_in(read_sweep: Read) -> None:
    config = read_sweep(
        f"method: bayes\nmetric: {{name: x}}\nearly_terminate: {{type: hyperband, min_iter: 3}}\n{SPACE}"
    )
    assert config.metric == Metric("x", "minimize", None, "worst")
    assert config.early_terminate == Hyperband(3, None, None, 3.0, strict=True)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", CurveStopping(None, 1.0)),
        (", min_iter: 2, margin: 0.5", CurveStopping(2, 0.5)),
        (", margin: 0", CurveStopping(None, 0.0)),
    ],
)
def test_reads_curve_stopping(read_sweep: Callable[..., SweepConfig], keys: str, expected: CurveStopping) -> None:
    config = read_sweep(f"method: bayes\nmetric: {{name: x}}\nearly_terminate: {{type: curve{keys}}}\n{SPACE}")
    assert config.early_terminate == expected
    assert (config.run_cap, config.name, config.notes, config.warnings) == (None, None, (), ())


def test_a_config_cannot_be_changed(read_sweep: Read) -> None:
    config = read_sweep(HEAD)
    with pytest.raises(FrozenInstanceError):
        config.run_cap = 3  # type: ignore[misc]


def test_without_a_metric_random_and_grid_rank_by_validation_loss(read_sweep: Read) -> None:
    config = read_sweep(f"method: random\n{SPACE}")
    assert config.metric == Metric("val_loss", "minimize")
    assert config.notes == ("The file names no metric; trials are ranked by the lowest val_loss.",)


@pytest.mark.parametrize("value", ["false", "'false'"])
def test_takes_false_for_impute_while_running_with_or_without_quotes(read_sweep: Read, value: str) -> None:
    assert read_sweep(HEAD.replace("val_loss", f"val_loss, impute_while_running: {value}")).notes == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("method: random", "methd: random"), "1: methd: is not a key of a sweep file here. Did you mean 'method'?"),
        (("method: random", "method: Bayes"), "1: method: must be one of bayes, random, grid, got 'Bayes'. Did you mean 'bayes'?"),
        (("method: random", "method: custom"),
         "1: method: custom runs your own search code through a `scheduler`, which W&B hosts. Choose one of bayes, random, grid."),
        (("method: random", "method: [grid]"), "1: method: must be one of bayes, random, grid, got ['grid']."),
        (("parameters", "parameter"), "3: parameter: is not a key of a sweep file here. Did you mean 'parameters'?"),
        (("{name: val_loss}", "val_loss"), "2: metric: must be a mapping of keys, got 'val_loss'."),
        (("{name: val_loss}", "{goal: minimize}"), "2: metric: `name` is missing. Add, for example, `name: val_loss`."),
        (("val_loss", "3"), "2: metric.name: must be text, got 3. Put it in quotes."),
        (("val_loss", "x, goal: minimise"), "2: metric.goal: must be one of minimize, maximize, got 'minimise'. Did you mean 'minimize'?"),
        (("val_loss", "x, goal: up"), "2: metric.goal: must be one of minimize, maximize, got 'up'."),
        (("val_loss", "x, target: low"), "2: metric.target: must be a finite number, got 'low'."),
        (("val_loss", "x, impute: mean"), "2: metric.impute: must be one of latest, best, worst, got 'mean'."),
        (("val_loss", "x, impute_while_running: true"),
         "2: metric.impute_while_running: must be one of latest, best, worst, false, got True."),
        (("val_loss", "x, gaol: minimize"), "2: metric.gaol: is not a key of a sweep file here. Did you mean 'goal'?"),
        (("", "run_cap: 0\n"), "1: run_cap: must be a whole number from 1 up, got 0."),
        (("", "run_cap: 2.5\n"), "1: run_cap: must be a whole number from 1 up, got 2.5."),
        (("", "run_cap:\n"), "1: run_cap: must be a finite number, got None. Give it a value or remove the key."),
        (("", "name: 3\n"), "1: name: must be text, got 3. Put it in quotes."),
        (("", "description:\n"), "1: description: must be text, got None. Give it a value or remove the key."),
        (("", "command: python\n"), "1: command: must be a list of texts. Remove it, it is not used here."),
        (("", "kind: job\n"), "1: kind: must be one of sweep, got 'job'."),
        (("", "controller: {}\n"), "1: controller.type: must be one of local, cloud, got None."),
        (("", "apiVersion: 1\n"), "1: apiVersion: must be text, got 1. Put it in quotes."),
        (("", "scheduler: {engine: ax}\n"),
         "1: scheduler: is not supported: it runs your own search code; choose `method: bayes`, `random` or `grid`."),
        (("", "metrics: []\n"), "1: metrics: is not supported: several metrics need `method: custom`; choose one as `metric`."),
        (("", "early_terminate:\n"), "1: early_terminate: must be a mapping of keys, got None. Give it a value or remove the key."),
        (("", "early_terminate: {min_iter: 3}\n"), "1: early_terminate: `type` is missing. Add `type: hyperband`."),
        (("", "early_terminate: {type: hyper, min_iter: 3}\n"), "1: early_terminate.type: must be one of hyperband, curve, got 'hyper'. Did you mean 'hyperband'?"),
        (("", "early_terminate: {type: hyperband}\n"), "1: early_terminate: needs `min_iter`, or `max_iter` and `s`. Add, for example, `min_iter: 3`."),
        (("", "early_terminate: {type: hyperband, max_iter: 9}\n"), "1: early_terminate: needs `min_iter`, or `max_iter` and `s`. Add, for example, `min_iter: 3`."),
        (("", "early_terminate: {type: hyperband, min_iter: 1, s: 9}\n"), "1: early_terminate: s needs max_iter. Add max_iter or remove s."),
        (("", "early_terminate: {type: hyperband, min_iter: 1, max_iter: 9}\n"), "1: early_terminate: max_iter needs s. Add s or remove max_iter."),
        (("", "early_terminate: {type: hyperband, max_iter: 2, s: 1}\n"), "1: early_terminate.max_iter: leaves no band: 2 / eta is below 1. Raise it to 3 or more."),
        (("", "early_terminate: {type: hyperband, min_iter: 0}\n"), "1: early_terminate.min_iter: must be a whole number from 1 up, got 0."),
        (("", "early_terminate: {type: hyperband, min_iter: 1, eta: 1}\n"), "1: early_terminate.eta: must be above 1, got 1. W&B's default is 3."),
        (("", "early_terminate: {type: hyperband, min_iter: 1, strict: 1}\n"), "1: early_terminate.strict: must be true or false, got 1."),
        (("", "early_terminate: {type: hyperband, min_iter: 1, mode: min}\n"),
         "1: early_terminate.mode: is not a key of a sweep file here. Known: type, min_iter, max_iter, s, eta, strict."),
        (("", "early_terminate: {type: curve, eta: 3}\n"), "1: early_terminate.eta: is not a key of a sweep file here. Known: type, min_iter, margin."),
        (("", "early_terminate: {type: curve, margin: -1}\n"), "1: early_terminate.margin: must be 0 or above, got -1. The default is 1."),
        (("", "early_terminate: {type: curve, min_iter: 0}\n"), "1: early_terminate.min_iter: must be a whole number from 1 up, got 0."),
    ],
)  # fmt: skip
def test_names_the_broken_rule(problems_of: Problems, change: tuple[str, str], problem: str) -> None:
    old, new = change
    assert f"sweep.yaml:{problem}" in problems_of(HEAD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"method: bayes\n{SPACE}", "`metric` is missing, which `method: bayes` needs. Add `metric: {name: val_loss}`."),
        (f"method: random\nearly_terminate: {{type: hyperband, min_iter: 3}}\n{SPACE}",
         "`metric` is missing, which `early_terminate` needs. Add `metric: {name: val_loss}`."),
        ("method: random\n", "`parameters` is missing. Add at least one parameter, such as `lr: {min: 0.001, max: 0.1}`."),
        (SPACE + "metric: {name: x}\n", "`method` is missing. Add one of bayes, random, grid."),
    ],
)  # fmt: skip
def test_names_what_is_missing(problems_of: Problems, text: str, problem: str) -> None:
    assert problems_of(text) == [f"sweep.yaml:1: {problem}"]


def test_reports_all_problems_at_once_in_the_order_of_the_file(problems_of: Problems) -> None:
    problems = problems_of(
        "run_cap: 0\nmethod: baies\nmetric:\n  goal: x\nparameters:\n  a: 1\n  b: {min: 2, max: 1}\n"
    )
    assert [problem.split(" ")[0] for problem in problems] == [
        "sweep.yaml", "sweep.yaml:1:", "sweep.yaml:2:", "sweep.yaml:3:", "sweep.yaml:4:", "sweep.yaml:6:", "sweep.yaml:7:",
    ]  # fmt: skip
    assert problems[0] == "sweep.yaml has 6 problems:"


@pytest.mark.parametrize(
    "kind", ["uniform, min: 0, max: 1", "normal", "q_normal", "log_uniform_values, min: 1, max: 2"]
)
def test_a_grid_refuses_what_it_cannot_list(problems_of: Problems, kind: str) -> None:
    problems = problems_of(f"method: grid\nparameters: {{x: {{distribution: {kind}}}}}\n")
    name = kind.partition(",")[0]
    assert problems == [
        f"sweep.yaml:2: parameters.x: a grid takes constant, categorical, int_uniform, q_uniform only, got {name}. "
        "List its `values`, or choose `method: random` or `bayes`."
    ]


def test_a_grid_refuses_a_parameter_of_too_many_values(problems_of: Problems) -> None:
    assert problems_of("method: grid\nparameters: {x: {min: 1, max: 10001}}\n") == [
        "sweep.yaml:2: parameters.x: 10,001 values are too many for a grid. Choose fewer, or `method: random`."
    ]


def test_a_grid_is_checked_by_the_values_that_it_lists(problems_of: Problems) -> None:
    def positive(name: str, value: Any) -> str | None:
        return None if value > 0 else f"must be above 0, got {value}"

    text = "method: grid\nparameters: {x: {distribution: q_uniform, min: 1, max: 10, q: 4}, y: {min: -2, max: 5}}\n"
    assert problems_of(text, check=positive) == ["sweep.yaml:2: parameters.y: must be above 0, got -2"]
    assert problems_of(text.replace("grid", "random"), check=positive)[1] == (
        "sweep.yaml:2: parameters.x.min: must be above 0, got 0 (q_uniform draws from 0 to 8)."
    )


def test_shows_the_first_fifty_problems(problems_of: Problems) -> None:
    words = ", ".join(f"x{number}" for number in range(60))
    problems = problems_of(f"{HEAD[:-2]}, a: {{values: [{words}]}}}}\n", check=refuse_words)
    assert problems[0] == "sweep.yaml has 60 problems:"
    assert problems[50:] == ["sweep.yaml:3: parameters.a.values[49]: not x49", "… and 10 more."]


def refuse_words(name: str, value: Any) -> str | None:
    return f"not {value}" if isinstance(value, str) else None


def test_reads_a_list_of_many_values_in_no_time(read_sweep: Read) -> None:
    words = ", ".join(f"x{number}" for number in range(20_000))
    (parameter,) = read_sweep(f"method: random\nparameters: {{a: {{values: [{words}]}}}}\n").parameters
    assert parameter.distribution.from_quantile(1.0) == "x19999"


def test_a_metric_must_be_one_that_the_trial_logs(problems_of: Problems) -> None:
    names = ("train_loss", "val_loss", "val_accuracy")
    assert problems_of(HEAD, metric_names=names) == []
    assert problems_of(HEAD.replace("val_loss", "val_acuracy"), metric_names=names) == [
        "sweep.yaml:2: metric.name: must be a value that the trial logs (train_loss, val_loss, val_accuracy), "
        "got 'val_acuracy'. Did you mean 'val_accuracy'?"
    ]


@pytest.mark.parametrize(
    ("metric", "warning"),
    [
        ("{name: val_accuracy}", "metric: val_accuracy is minimized by default. If more is better, write `goal: maximize`."),
        ("{name: f1, goal: minimize}", "metric: f1 is minimized. If more is better, write `goal: maximize`."),
        ("{name: val_loss, goal: maximize}", "metric.goal: val_loss is maximized. If less is better, write `goal: minimize`."),
        ("{name: val_accuracy, goal: maximize}", None),
        ("{name: val_loss}", None),
    ],
)  # fmt: skip
def test_warns_of_a_goal_that_is_hardly_meant(read_sweep: Read, metric: str, warning: str | None) -> None:
    config = read_sweep(f"method: random\nmetric: {metric}\n{SPACE}")
    assert config.warnings == ((f"{config.path}:2: {warning}",) if warning else ())


def test_says_which_bands_count_when_both_are_given(read_sweep: Read) -> None:
    config = read_sweep(f"{HEAD}early_terminate: {{type: hyperband, min_iter: 2, max_iter: 9, s: 2}}\n")
    assert config.early_terminate == Hyperband(None, 9, 2, 3.0, strict=True)
    assert config.warnings == (
        f"{config.path}:4: early_terminate.min_iter: is not used, because `max_iter` and `s` are given.",
    )


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_fits_the_trial(path: Path) -> None:
    config = load_sweep(path, check_parameter)
    assert config.warnings == ()
    assert config.run_cap is not None or config.method == "grid"


def test_a_json_file_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    path.write_text('{"method": "random",\n\t"parameters": {"lr": {"min": 1, "max": 0}}}')
    with pytest.raises(UserError, match=r"sweep\.json:2: parameters\.lr\.min: must be below max \(0\), got 1\."):
        load_sweep(path, _accept_all)


def _accept_all(name: str, value: Any) -> str | None:
    return None
