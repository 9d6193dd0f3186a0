"""Turns the `parameters` of a sweep file into distributions, with the rules of each in one table."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tune_cifar.errors import show
from tune_cifar.sweep import distributions as dist
from tune_cifar.sweep.distributions import Distribution
from tune_cifar.sweep.kinds import KINDS
from tune_cifar.sweep.problems import LARGEST_INTEGER, LARGEST_NUMBER, FileCheck, did_you_mean
from tune_cifar.sweep.source import Location
from tune_cifar.sweep.values import comparable

# exp() of these is the range of numbers that a file may have.
LARGEST_EXPONENT = 690.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Parameter:
    """One parameter of the sweep: its path through the file's groups, and what it is drawn from."""

    path: tuple[str, ...]
    distribution: Distribution

    @property
    def key(self) -> str:
        """The path as one text: "optimizer/lr"."""
        return "/".join(self.path)

    @property
    def name(self) -> str:
        """The name that the trial knows; groups only order a file."""
        return self.path[-1]


def read_parameters(section: Any, location: Location, check: FileCheck) -> Iterator[tuple[Location, Parameter]]:
    """Every parameter of a `parameters` section, groups included, with its place in the file."""
    if section == {}:
        check.problem(location, "has no parameter. Give it at least one.")
    for name, spec in (check.mapping(section, location) or {}).items():
        place = (*location, name)
        if not _NAME.fullmatch(name):
            rule = "a parameter's name has letters, digits and . _ -, and starts with a letter or _"
            check.problem(place, f"{rule}, got {show(name)}.")
        elif not isinstance(spec, dict):
            example = f"{{values: {show(spec)}}}" if isinstance(spec, list) else f"{{value: {show(spec or 0)}}}"
            check.problem(place, f"must be a mapping such as {{min: 0, max: 1}}, got {show(spec)}. Write {example}.")
        elif "parameters" in spec:
            check.known_keys(spec, ["parameters"], place)
            yield from read_parameters(spec["parameters"], (*place, "parameters"), check)
        else:
            distribution = _read_distribution(spec, place, check)
            if distribution is not None:
                # ("parameters", "optimizer", "parameters", "lr"): every second part is a name.
                yield place, Parameter(tuple(str(part) for part in place[1::2]), distribution)


def _read_distribution(spec: dict[str, Any], place: Location, check: FileCheck) -> Distribution | None:
    kind = _kind_of(spec, place, check)
    if kind is None:
        return None
    rules = KINDS[kind]
    misplaced = [key for key in spec if key != "distribution" and key not in rules.keys]
    missing = [key for key in rules.required if key not in spec]
    for key in misplaced:
        check.problem((*place, key), _misplaced(key, kind))
    if missing:
        check.problem(place, f"{kind} needs {' and '.join(missing)}. Add {'them' if len(missing) > 1 else 'it'}.")
    if misplaced or missing:
        return None
    if kind in ("constant", "categorical", "categorical_w_probabilities"):
        return _read_choice(kind, spec, place, check)
    read = check.integer if kind == "int_uniform" else check.number
    given = {**dict(rules.defaults), **{key: spec[key] for key in rules.keys if key in spec}}
    numbers = {key: read(value, (*place, key)) for key, value in given.items()}
    fields = {key: number for key, number in numbers.items() if number is not None}
    if len(fields) < len(numbers):
        return None
    return _read_numeric(kind, fields, place, check)


_ALL_KEYS = (
    "distribution",
    "parameters",
    *dict.fromkeys(key for kind in KINDS.values() for key in kind.keys),
)
_NOT_INFERRED = {"q": "q_uniform", "mu": "normal", "sigma": "normal", "a": "beta", "b": "beta"}


def _kind_of(spec: dict[str, Any], place: Location, check: FileCheck) -> str | None:
    """The distribution that `spec` names, or the one that W&B infers from its keys."""
    if "distribution" in spec:
        return check.choice(spec["distribution"], KINDS, (*place, "distribution"))
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    for key, example in _NOT_INFERRED.items():
        if key in spec:
            check.problem(place, f"{key} needs a named distribution. Add, for example, `distribution: {example}`.")
            return None
    if "min" in spec or "max" in spec:
        whole = all(isinstance(spec.get(bound), int) for bound in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    unknown = next((hint for hint in (did_you_mean(key, _ALL_KEYS) for key in spec) if hint), "")
    got = f", got {', '.join(spec)}" if spec else ""
    check.problem(place, f"needs value, values, min and max, or distribution{got}. {unknown}".rstrip())
    return None


def _misplaced(key: str, kind: str) -> str:
    takes = f"{kind} takes {', '.join(KINDS[kind].keys)}"
    if key not in _ALL_KEYS:
        return f"is not a key of a parameter; {takes}. {did_you_mean(key, _ALL_KEYS)}".rstrip()
    if key == "probabilities" and kind == "categorical":
        return "goes with `distribution: categorical_w_probabilities`. Change or remove `distribution`."
    if key == "q" and f"q_{kind}" in KINDS:
        return f"goes with `distribution: q_{kind}`; {takes}."
    return f"does not go with {kind}; {takes}. Remove it."


def _read_choice(kind: str, spec: dict[str, Any], place: Location, check: FileCheck) -> Distribution | None:
    if kind == "constant":
        return dist.Constant(spec["value"])
    values = spec["values"]
    if not isinstance(values, list) or not values:
        check.problem((*place, "values"), f"must be a list of at least one value, got {show(values)}.")
        return None
    repeated = next((value for value, count in Counter(map(comparable, values)).items() if count > 1), None)
    if repeated is not None:
        first = next(value for value in values if comparable(value) == repeated)
        check.warn((*place, "values"), f"{show(first)} is listed more than once.")
    if kind == "categorical":
        return dist.Categorical(tuple(values))
    weights = spec["probabilities"]
    where = (*place, "probabilities")
    if not isinstance(weights, list) or len(weights) != len(values):
        check.problem(where, f"must be a list of {len(values)} numbers, one for each value, got {show(weights)}.")
        return None
    read = [check.number(weight, (*where, index)) for index, weight in enumerate(weights)]
    numbers = [number for number in read if number is not None]
    if len(numbers) < len(values):
        return None
    if min(numbers) < 0:
        check.problem(where, f"must be 0 or above, got {show(min(numbers))}.")
    elif not math.isclose(sum(numbers), 1, rel_tol=1e-5):
        check.problem(where, f"must add up to 1, got {sum(numbers):.6g}.")
    return dist.Categorical(tuple(values), tuple(numbers), kind)


def _read_numeric(kind: str, fields: dict[str, float], place: Location, check: FileCheck) -> Distribution | None:
    problem = _broken_rule(kind, fields)
    if problem:
        key, text = problem
        check.problem((*place, key) if key in fields else place, text)
        return None
    base: dist.Continuous
    match kind.removeprefix("q_"):
        case "int_uniform":
            return dist.IntUniform(int(fields["min"]), int(fields["max"]))
        case "uniform":
            base = dist.Uniform(float(fields["min"]), float(fields["max"]), kind)
        case "log_uniform" | "inv_log_uniform" as name:
            low, high = fields["min"], fields["max"]
            low, high = (-high, -low) if name.startswith("inv") else (low, high)
            base = dist.LogUniform(math.exp(low), math.exp(high), kind)
            _check_exponents(kind, fields, base, place, check)
        case "log_uniform_values" | "inv_log_uniform_values":
            base = dist.LogUniform(float(fields["min"]), float(fields["max"]), kind)
        case "normal":
            base = dist.Normal(fields["mu"], fields["sigma"], kind)
        case "log_normal":
            base = dist.LogNormal(fields["mu"], fields["sigma"], kind)
        case _:
            base = dist.Beta(fields["a"], fields["b"], kind)
    if "q" not in fields:
        return base
    largest = max(abs(value) for value in dist.practical_range(base))
    if largest / fields["q"] > LARGEST_INTEGER:
        check.problem((*place, "q"), f"is too small for values up to {largest:g}, got {fields['q']:g}.")
        return None
    return dist.Quantized(base, fields["q"], kind)


def _broken_rule(kind: str, fields: dict[str, float]) -> tuple[str, str] | None:
    """The key and the rule that `fields` breaks, or None."""
    if "min" in fields and fields["min"] >= fields["max"]:
        fix = f"Write `value: {fields['min']}`." if fields["min"] == fields["max"] else "Swap them."
        return "min", f"must be below max ({fields['max']}), got {fields['min']}. {fix}"
    if kind.endswith("log_uniform_values") and fields["min"] < 1 / LARGEST_NUMBER:
        return "min", f"must be above 0 for {kind}, got {fields['min']}."
    if kind.endswith("log_uniform"):
        for key in ("min", "max"):
            if abs(fields[key]) > LARGEST_EXPONENT:
                limit = LARGEST_EXPONENT
                return (
                    key,
                    f"is an exponent of e and must be from -{limit:g} to {limit:g}, got {fields[key]}.",
                )
    for key in ("sigma", "a", "b", "q"):
        if key in fields and not fields[key] > 0:
            return key, f"must be above 0, got {fields[key]}."
    if kind.endswith("log_normal") and abs(fields["mu"]) + 9 * fields["sigma"] > LARGEST_EXPONENT:
        return (
            "sigma",
            f"makes values too large or small for a number: exp({fields['mu']} ± 9 * {fields['sigma']}).",
        )
    return None


def _check_exponents(
    kind: str, fields: dict[str, float], base: dist.LogUniform, place: Location, check: FileCheck
) -> None:
    """Find bounds that were given to `log_uniform` as values: it takes exponents."""
    if fields["min"] < 0:
        return
    meaning = f"{kind} takes exponents of e, so this gives {base.low:.6g} to {base.high:.6g}"
    fix = f"If {fields['min']} to {fields['max']} is meant, write `distribution: {kind}_values`."
    if fields["max"] <= 1:  # nobody asks for a logarithmic scale within a factor of e
        check.problem((*place, "distribution"), f"{meaning}. {fix}")
    elif not kind.startswith("inv"):  # 1/X is above 1 for the small X that the inv_ forms are for
        check.warn((*place, "distribution"), f"{meaning}. {fix}")
