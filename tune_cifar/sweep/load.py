"""Reads a sweep file into its typed form and checks every key, so that later code deals with meant values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from tune_cifar.errors import show
from tune_cifar.sweep.grid import GRID_KINDS, grid_values
from tune_cifar.sweep.parameters import Parameter, read_parameters
from tune_cifar.sweep.problems import FileCheck, did_you_mean
from tune_cifar.sweep.schema import (
    EARLY_TERMINATE_TYPES,
    KEYS,
    METRIC_KEYS,
    CurveStopping,
    Goal,
    Hyperband,
    Impute,
    Method,
    Metric,
    SweepConfig,
)
from tune_cifar.sweep.source import Location, read_source
from tune_cifar.sweep.trial_rules import ParameterCheck, check_listed, check_names, check_values


def load_sweep(path: Path, check_parameter: ParameterCheck, metric_names: Sequence[str] = ()) -> SweepConfig:
    """Read and check the sweep file at `path`.

    `check_parameter(name, value)` returns the rule of the trial that `value` breaks, or None; it is asked
    about the constants, the categorical values and the ends of the distributions, after decoding.
    `metric_names` are the values that a trial logs; without any, every metric goes.
    Raises `UserError` with every problem of the file: place, rule, value and fix, a line each.
    """
    source = read_source(path)
    data = source.data
    check = FileCheck(source)
    check.known_keys(data, KEYS, ())
    for key in ("scheduler", "metrics"):
        if key in data:
            check.problem((key,), f"is not supported: {KEYS[key].meaning}.")
    notes: list[str] = []
    method = _read_method(data, check)
    parameters = _read_parameters(data, method, check_parameter, check)
    metric = _read_metric(data, method, metric_names, notes, check)
    early_terminate = _read_early_terminate(data, check)
    run_cap = check.integer(data["run_cap"], ("run_cap",), low=1) if "run_cap" in data else None
    texts = {key: _read_text(data, key, check) for key in ("name", "description", "project", "entity")}
    _read_unused(data, notes, check)
    check.raise_problems()
    return SweepConfig(
        path=path,
        method=method,
        parameters=parameters,
        metric=metric,
        early_terminate=early_terminate,
        run_cap=run_cap,
        name=texts["name"],
        description=texts["description"],
        project=texts["project"],
        entity=texts["entity"],
        notes=tuple(notes),
        warnings=tuple(check.warnings),
        document=data,
    )


def _read_method(data: dict[str, Any], check: FileCheck) -> Method:
    methods: tuple[Method, ...] = get_args(Method)
    if "method" not in data:
        check.problem((), f"`method` is missing. Add one of {', '.join(methods)}.")
    elif data["method"] == "custom":
        reason = "custom runs your own search code through a `scheduler`, which W&B hosts"
        check.problem(("method",), f"{reason}. Choose one of {', '.join(methods)}.")
    else:
        word = check.choice(data["method"], methods, ("method",))
        return next((method for method in methods if method == word), "random")
    return "random"  # the problem is noted, so no search runs with this


def _read_parameters(
    data: dict[str, Any], method: Method, check_parameter: ParameterCheck, check: FileCheck
) -> tuple[Parameter, ...]:
    if "parameters" not in data:
        check.problem((), "`parameters` is missing. Add at least one parameter, such as `lr: {min: 0.001, max: 0.1}`.")
        return ()
    placed = list(read_parameters(data["parameters"], ("parameters",), check))
    check_names(placed, check)
    for place, parameter in placed:
        if method == "grid" and parameter.distribution.kind not in ("constant", "categorical"):
            _check_grid(place, parameter, check_parameter, check)
        else:
            check_values(place, parameter, check_parameter, check)
    return tuple(parameter for _, parameter in placed)


def _check_grid(place: Location, parameter: Parameter, check_parameter: ParameterCheck, check: FileCheck) -> None:
    kind = parameter.distribution.kind
    if kind not in GRID_KINDS:
        fix = "List its `values`, or choose `method: random` or `bayes`."
        check.problem(place, f"a grid takes {', '.join(GRID_KINDS)} only, got {kind}. {fix}")
        return
    try:
        values = grid_values(parameter.distribution)
    except ValueError as error:
        check.problem(place, str(error))
        return
    check_listed([(place, value) for value in values], place, parameter.name, check_parameter, check)


def _read_metric(
    data: dict[str, Any], method: Method, metric_names: Sequence[str], notes: list[str], check: FileCheck
) -> Metric:
    place: Location = ("metric",)
    default = Metric()
    if "metric" not in data:
        needing = "`method: bayes`" if method == "bayes" else "`early_terminate`" if "early_terminate" in data else ""
        if needing:
            check.problem((), f"`metric` is missing, which {needing} needs. Add `metric: {{name: {default.name}}}`.")
        notes.append(f"The file names no metric; trials are ranked by the lowest {default.name}.")
        return default
    section = check.mapping(data["metric"], place)
    if section is None:
        return default
    check.known_keys(section, METRIC_KEYS, place)
    if "name" not in section:
        check.problem(place, f"`name` is missing. Add, for example, `name: {default.name}`.")
    name = check.text(section.get("name", default.name), (*place, "name"))
    if metric_names and name is not None and name not in metric_names:
        hint = did_you_mean(name, metric_names)
        rule = f"must be a value that the trial logs ({', '.join(metric_names)}), got {show(name)}. {hint}"
        check.problem((*place, "name"), rule.rstrip())
    goal: Goal = "minimize"
    if "goal" in section and check.choice(section["goal"], get_args(Goal), (*place, "goal")) == "maximize":
        goal = "maximize"
    imputes: tuple[Impute, ...] = get_args(Impute)
    word = check.choice(section.get("impute", "worst"), imputes, (*place, "impute"))
    impute = next((known for known in imputes if known == word), default.impute)
    if "impute_while_running" in section:
        _read_impute_while_running(section["impute_while_running"], notes, check)
    target = check.number(section["target"], (*place, "target")) if "target" in section else None
    _warn_of_goal(name or "", goal, "goal" in section, check)
    return Metric(name or default.name, goal, target, impute)


def _read_impute_while_running(value: Any, notes: list[str], check: FileCheck) -> None:
    # YAML reads an unquoted false as a truth value, where W&B's schema asks for the text "false".
    word = "false" if value is False else value
    place = ("metric", "impute_while_running")
    if check.choice(word, (*get_args(Impute), "false"), place) not in (None, "false"):
        notes.append(f"metric.impute_while_running is not used: {METRIC_KEYS['impute_while_running'].meaning}.")


def _warn_of_goal(name: str, goal: Goal, given: bool, check: FileCheck) -> None:
    """Point out an accuracy that is minimized (W&B's default goal) or a loss that is maximized."""
    words = name.lower()
    if goal == "minimize" and ("acc" in words or "f1" in words):
        reason = "" if given else " by default"
        check.warn(("metric",), f"{name} is minimized{reason}. If more is better, write `goal: maximize`.")
    if goal == "maximize" and ("loss" in words or "error" in words):
        check.warn(("metric", "goal"), f"{name} is maximized. If less is better, write `goal: minimize`.")


def _read_early_terminate(data: dict[str, Any], check: FileCheck) -> Hyperband | CurveStopping | None:
    place: Location = ("early_terminate",)
    section = check.mapping(data["early_terminate"], place) if "early_terminate" in data else None
    if section is None:
        return None
    kind = "hyperband"
    if "type" not in section:
        check.problem(place, "`type` is missing. Add `type: hyperband`.")
    else:
        kind = check.choice(section["type"], EARLY_TERMINATE_TYPES, (*place, "type")) or kind
    check.known_keys(section, EARLY_TERMINATE_TYPES[kind], place)
    return _read_curve(section, place, check) if kind == "curve" else _read_hyperband(section, place, check)


def _read_curve(section: dict[str, Any], place: Location, check: FileCheck) -> CurveStopping | None:
    min_iter = check.integer(section["min_iter"], (*place, "min_iter"), low=1) if "min_iter" in section else None
    margin = check.number(section.get("margin", CurveStopping.margin), (*place, "margin"))
    if margin is not None and margin < 0:
        check.problem((*place, "margin"), f"must be 0 or above, got {margin}. The default is {CurveStopping.margin:g}.")
    return None if margin is None else CurveStopping(min_iter, float(margin))


def _read_hyperband(section: dict[str, Any], place: Location, check: FileCheck) -> Hyperband | None:
    num_problems = len(check.problems)
    whole = {
        key: check.integer(section[key], (*place, key), low=1)
        for key in ("min_iter", "max_iter", "s")
        if key in section
    }
    if "min_iter" not in whole and not {"max_iter", "s"} <= whole.keys():
        check.problem(place, "needs `min_iter`, or `max_iter` and `s`. Add, for example, `min_iter: 3`.")
    elif ("max_iter" in whole) != ("s" in whole):
        missing, given = ("s", "max_iter") if "max_iter" in whole else ("max_iter", "s")
        check.problem(place, f"{given} needs {missing}. Add {missing} or remove {given}.")
    elif "max_iter" in whole and "min_iter" in whole:
        check.warn((*place, "min_iter"), "is not used, because `max_iter` and `s` are given.")
    eta = check.number(section.get("eta", 3.0), (*place, "eta"))
    if eta is not None and eta <= 1:
        check.problem((*place, "eta"), f"must be above 1, got {eta}. W&B's default is 3.")
    strict = check.boolean(section.get("strict", True), (*place, "strict"))
    if len(check.problems) > num_problems or eta is None or strict is None:
        return None
    max_iter = whole.get("max_iter")
    if max_iter is not None and max_iter < eta:
        check.problem(
            (*place, "max_iter"), f"leaves no band: {max_iter} / eta is below 1. Raise it to {math.ceil(eta)} or more."
        )
    return Hyperband(None if max_iter else whole.get("min_iter"), max_iter, whole.get("s"), float(eta), strict)


def _read_text(data: dict[str, Any], key: str, check: FileCheck) -> str | None:
    return (check.text(data[key], (key,)) or None) if key in data else None


def _read_unused(data: dict[str, Any], notes: list[str], check: FileCheck) -> None:
    """Check the keys that steer only W&B's agents as W&B does, and name those that the file has."""
    unused = [key for key in data if key in KEYS and KEYS[key].use == "accepted and not used"]
    for key in unused:
        if key == "command":
            if not isinstance(data[key], list):
                check.problem((key,), "must be a list of texts. Remove it, it is not used here.")
        elif key == "controller":
            section = check.mapping(data[key], (key,))
            if section is not None:
                check.choice(section.get("type"), ("local", "cloud"), (key, "type"))
        elif key == "kind":
            check.choice(data[key], ("sweep",), (key,))
        else:
            check.text(data[key], (key,))
    for reason in dict.fromkeys(KEYS[key].meaning for key in unused):
        names = [key for key in unused if KEYS[key].meaning == reason]
        notes.append(f"Not used: {', '.join(names)} ({reason}).")
