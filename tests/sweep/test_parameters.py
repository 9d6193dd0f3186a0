# ruff: noqa: E501 - the tables have a row a line

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tune_cifar.sweep.distributions import (
    Beta,
    Categorical,
    Constant,
    Distribution,
    IntUniform,
    LogNormal,
    LogUniform,
    Normal,
    Quantized,
    Uniform,
)
from tune_cifar.sweep.kinds import KINDS
from tune_cifar.sweep.schema import SweepConfig

HEAD = "method: random\nmetric: {name: val_loss}\nparameters:\n"


@pytest.mark.parametrize(
    ("spec", "distribution"),
    [
        ("{value: 3}", Constant(3)),
        ("{value: null, distribution: constant}", Constant(None)),
        ("{value: {a: [1]}}", Constant({"a": [1]})),
        ("{values: [1, a, null, [2]]}", Categorical((1, "a", None, [2]))),
        ("{values: [1], distribution: categorical}", Categorical((1,))),
        ("{values: [1, 2], probabilities: [0.25, 0.75]}", Categorical((1, 2), (0.25, 0.75), "categorical_w_probabilities")),
        ("{min: 1, max: 10}", IntUniform(1, 10)),
        ("{min: 1, max: 10, distribution: int_uniform}", IntUniform(1, 10)),
        ("{min: 1, max: 10.0}", Uniform(1.0, 10.0)),
        ("{min: 1e-4, max: 1}", Uniform(1e-4, 1.0)),
        ("{min: 1, max: 10, distribution: uniform}", Uniform(1.0, 10.0)),
        ("{min: 1e-4, max: 1e-1, distribution: log_uniform_values}", LogUniform(1e-4, 0.1)),
        ("{min: 1e-4, max: 1e-1, distribution: inv_log_uniform_values}", LogUniform(1e-4, 0.1, "inv_log_uniform_values")),
        ("{min: -9, max: -2, distribution: log_uniform}", LogUniform(math.exp(-9), math.exp(-2), "log_uniform")),
        ("{min: 2, max: 9, distribution: inv_log_uniform}", LogUniform(math.exp(-9), math.exp(-2), "inv_log_uniform")),
        ("{distribution: normal}", Normal(0.0, 1.0)),
        ("{distribution: normal, mu: 3, sigma: 2}", Normal(3, 2)),
        ("{distribution: log_normal, mu: -5}", LogNormal(-5, 1.0)),
        ("{distribution: beta, a: 2}", Beta(2, 1.0)),
        ("{distribution: q_uniform, min: 1, max: 9}", Quantized(Uniform(1.0, 9.0, "q_uniform"), 1.0, "q_uniform")),
        ("{distribution: q_log_uniform, min: 1, max: 3, q: 2}",
         Quantized(LogUniform(math.e, math.exp(3), "q_log_uniform"), 2, "q_log_uniform")),
        ("{distribution: q_log_uniform_values, min: 1, max: 9, q: 2}",
         Quantized(LogUniform(1.0, 9.0, "q_log_uniform_values"), 2, "q_log_uniform_values")),
        ("{distribution: q_normal, q: 0.5}", Quantized(Normal(0.0, 1.0, "q_normal"), 0.5, "q_normal")),
        ("{distribution: q_log_normal}", Quantized(LogNormal(0.0, 1.0, "q_log_normal"), 1.0, "q_log_normal")),
        ("{distribution: q_beta, q: 0.1}", Quantized(Beta(1.0, 1.0, "q_beta"), 0.1, "q_beta")),
    ],
)  # fmt: skip
def test_reads_or_infers_the_distribution(
    read_sweep: Callable[..., SweepConfig], spec: str, distribution: Distribution
) -> None:
    (parameter,) = read_sweep(f"{HEAD}  x: {spec}\n").parameters
    assert parameter.distribution == distribution
    assert type(parameter.distribution) is type(distribution)


def test_reads_every_distribution_with_its_required_keys_only(read_sweep: Callable[..., SweepConfig]) -> None:
    given = {"min": "2", "max": "3", "value": "1", "values": "[1]", "probabilities": "[1]"}
    for kind, rules in KINDS.items():
        keys = ", ".join(f"{key}: {given[key]}" for key in rules.required)
        (parameter,) = read_sweep(f"{HEAD}  x: {{distribution: {kind}, {keys}}}\n").parameters
        assert parameter.distribution.kind == kind


def test_reads_groups_to_any_depth(read_sweep: Callable[..., SweepConfig]) -> None:
    text = f"{HEAD}  a: {{parameters: {{b: {{parameters: {{c.d: {{value: 1}}}}}}, e-f: {{values: [2]}}}}}}\n  g: {{value: 3}}\n"
    parameters = read_sweep(text).parameters
    assert [(p.key, p.name) for p in parameters] == [("a/b/c.d", "c.d"), ("a/e-f", "e-f"), ("g", "g")]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("5", "x: must be a mapping such as {min: 0, max: 1}, got 5. Write {value: 5}."),
        ("[1, 2]", "x: must be a mapping such as {min: 0, max: 1}, got [1, 2]. Write {values: [1, 2]}."),
        ("", "x: must be a mapping such as {min: 0, max: 1}, got None. Write {value: 0}."),
        ("{}", "x: needs value, values, min and max, or distribution."),
        ("{valeus: [1]}", "x: needs value, values, min and max, or distribution, got valeus. Did you mean 'values'?"),
        ("{min: 1}", "x: uniform needs max. Add it."),
        ("{distribution: uniform}", "x: uniform needs min and max. Add them."),
        ("{max: 1.5}", "x: uniform needs min. Add it."),
        ("{min: 2, max: 1}", "x.min: must be below max (1), got 2. Swap them."),
        ("{min: 2.5, max: 2.5}", "x.min: must be below max (2.5), got 2.5. Write `value: 2.5`."),
        ("{min: '1e-4', max: 1}", "x.min: must be a finite number, got '1e-4'. Write 1e-4 without quotes."),
        ("{min: abc, max: 1}", "x.min: must be a finite number, got 'abc'."),
        ("{min: true, max: 1}", "x.min: must be a finite number, got True."),
        ("{min: .nan, max: 1}", "x.min: must be a finite number, got nan."),
        ("{min: 0, max: .inf}", "x.max: must be a finite number, got inf."),
        ("{min: 0, max: 1e301}", "x.max: must be a finite number, got 1e+301."),
        (f"{{min: 0, max: {10**400}}}", f"x.max: must be a finite number, got {str(10**400)[:77]}...."),
        ("{min: 0, max:}", "x.max: must be a finite number, got None. Give it a value or remove the key."),
        (f"{{min: 0, max: {2**53 + 1}}}", "x.max: must be a whole number, got 9007199254740993."),
        ("{min: 1.5, max: 3, distribution: int_uniform}", "x.min: must be a whole number, got 1.5."),
        ("{min: 0, max: 1, distribution: log_uniform_values}", "x.min: must be above 0 for log_uniform_values, got 0."),
        ("{min: -1, max: 1, distribution: q_log_uniform_values}", "x.min: must be above 0 for q_log_uniform_values, got -1."),
        ("{min: -1000, max: 1, distribution: log_uniform}", "x.min: is an exponent of e and must be from -690 to 690, got -1000."),
        ("{min: 1e-4, max: 1e-1, distribution: log_uniform}",
         "x.distribution: log_uniform takes exponents of e, so this gives 1.0001 to 1.10517. "
         "If 0.0001 to 0.1 is meant, write `distribution: log_uniform_values`."),
        ("{min: 1e-4, max: 1e-1, distribution: inv_log_uniform}",
         "x.distribution: inv_log_uniform takes exponents of e, so this gives 0.904837 to 0.9999. "
         "If 0.0001 to 0.1 is meant, write `distribution: inv_log_uniform_values`."),
        ("{distribution: unifrom, min: 0, max: 1}",
         f"x.distribution: must be one of {', '.join(KINDS)}, got 'unifrom'. Did you mean 'uniform'?"),
        ("{distribution: 3}", f"x.distribution: must be one of {', '.join(KINDS)}, got 3."),
        ("{distribution: uniform, min: 0, max: 1, q: 2}",
         "x.q: goes with `distribution: q_uniform`; uniform takes min, max."),
        ("{distribution: uniform, min: 0, max: 1, mu: 2}", "x.mu: does not go with uniform; uniform takes min, max. Remove it."),
        ("{value: 1, max: 2}", "x.max: does not go with constant; constant takes value. Remove it."),
        ("{values: [1], valu: 2}",
         "x.valu: is not a key of a parameter; categorical takes values. Did you mean 'value'?"),
        ("{min: 1, max: 2, q: 1}", "x: q needs a named distribution. Add, for example, `distribution: q_uniform`."),
        ("{mu: 1, sigma: 2}", "x: mu needs a named distribution. Add, for example, `distribution: normal`."),
        ("{a: 1}", "x: a needs a named distribution. Add, for example, `distribution: beta`."),
        ("{distribution: normal, sigma: 0}", "x.sigma: must be above 0, got 0."),
        ("{distribution: beta, a: -1}", "x.a: must be above 0, got -1."),
        ("{distribution: q_uniform, min: 0, max: 1, q: 0}", "x.q: must be above 0, got 0."),
        ("{distribution: q_uniform, min: 0, max: 1e9, q: 1e-9}", "x.q: is too small for values up to 1e+09, got 1e-09."),
        ("{distribution: log_normal, sigma: 100}",
         "x.sigma: makes values too large or small for a number: exp(0.0 ± 9 * 100)."),
        ("{values: []}", "x.values: must be a list of at least one value, got []."),
        ("{values: 3}", "x.values: must be a list of at least one value, got 3."),
        ("{values: [1, 2], probabilities: [1]}", "x.probabilities: must be a list of 2 numbers, one for each value, got [1]."),
        ("{values: [1, 2], probabilities: [1, a]}", "x.probabilities[1]: must be a finite number, got 'a'."),
        ("{values: [1, 2], probabilities: [1.5, -0.5]}", "x.probabilities: must be 0 or above, got -0.5."),
        ("{values: [1, 2], probabilities: [0.3, 0.3]}", "x.probabilities: must add up to 1, got 0.6."),
        ("{values: [1, 2], probabilities: [0.5, 0.5], distribution: categorical}",
         "x.probabilities: goes with `distribution: categorical_w_probabilities`. Change or remove `distribution`."),
        ("{distribution: categorical_w_probabilities, values: [1]}", "x: categorical_w_probabilities needs probabilities. Add it."),
        ("{parameters: {}}", "x.parameters: has no parameter. Give it at least one."),
        ("{parameters: [1]}", "x.parameters: must be a mapping of keys, got [1]."),
        ("{parameters: {y: {value: 1}}, value: 1}", "x.value: is not a key of a sweep file here. Known: parameters."),
    ],
)  # fmt: skip
def test_names_the_broken_rule(problems_of: Callable[..., list[str]], spec: str, problem: str) -> None:
    assert problems_of(f"{HEAD}  x: {spec}\n") == [f"sweep.yaml:4: parameters.{problem}"]


@pytest.mark.parametrize("name", ["1x", "a b", "", "ä", "a/b", "-a"])
def test_refuses_names_that_wandb_refuses(problems_of: Callable[..., list[str]], name: str) -> None:
    (problem,) = problems_of(f"{HEAD}  '{name}': {{value: 1}}\n")
    assert "a parameter's name has letters, digits and . _ -, and starts with a letter or _, got" in problem


def test_a_place_with_two_problems_shows_the_first(problems_of: Callable[..., list[str]]) -> None:
    problems = problems_of(f"{HEAD}  x: {{distribution: uniform}}\n  x: {{value: 1}}\n")
    assert problems == ["sweep.yaml:5: parameters.x: is given twice, first on line 4. Remove one."]


def test_a_key_given_twice_hides_no_other_problem(problems_of: Callable[..., list[str]]) -> None:
    problems = problems_of(f"{HEAD}  x: {{value: 1, value: 2}}\n  y: {{min: 3, max: 1}}\n")
    assert problems == [
        "sweep.yaml has 2 problems:",
        "sweep.yaml:4: parameters.x.value: is given twice, first on line 4. Remove one.",
        "sweep.yaml:5: parameters.y.min: must be below max (1), got 3. Swap them.",
    ]


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        ("{values: [32, 64, 32]}", "x.values: 32 is listed more than once."),
        ("{min: 0, max: 5, distribution: log_uniform}",
         "x.distribution: log_uniform takes exponents of e, so this gives 1 to 148.413. "
         "If 0 to 5 is meant, write `distribution: log_uniform_values`."),
    ],
)  # fmt: skip
def test_warns_of_what_is_hardly_meant(read_sweep: Callable[..., SweepConfig], spec: str, warning: str) -> None:
    config = read_sweep(f"{HEAD}  x: {spec}\n")
    assert config.warnings == (f"{config.path}:4: parameters.{warning}",)


@pytest.mark.parametrize("spec", ["{min: 2, max: 9, distribution: inv_log_uniform}", "{values: [1, true, 1.5, '1']}"])
def test_does_not_warn_of_what_is_meant(read_sweep: Callable[..., SweepConfig], spec: str) -> None:
    assert read_sweep(f"{HEAD}  x: {spec}\n").warnings == ()
