"""Asks the trial's own rules about the values that a sweep can draw, so that a bad file fails at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tune_cifar.sweep.distributions import (
    PRACTICAL_QUANTILES,
    Categorical,
    Constant,
    Distribution,
    practical_range,
)
from tune_cifar.sweep.parameters import Parameter
from tune_cifar.sweep.problems import FileCheck
from tune_cifar.sweep.source import Location

ParameterCheck = Callable[[str, Any], str | None]

# Ordinary draws, spread by the golden ratio: they find a whole-number parameter drawn from real numbers.
_INNER_QUANTILES = tuple(step * 0.618034 % 1 for step in range(1, 9))
# Of a distribution that fades out, what 1 draw in 20 goes beyond is a problem, what 1 in 1000 does is a warning.
_COMMON_TAIL = 0.05


def check_names(placed: list[tuple[Location, Parameter]], check: FileCheck) -> None:
    """Refuse a parameter that two groups give: groups only order a file, the trial knows the last name."""
    first: dict[str, Location] = {}
    for place, parameter in placed:
        if parameter.name in first:
            other = ".".join(str(part) for part in first[parameter.name][1::2])
            line = check.source.line(first[parameter.name])
            text = f"is also given as {other} on line {line}; groups only order a file. Remove one."
            check.problem(place, text)
        first.setdefault(parameter.name, place)


def check_values(place: Location, parameter: Parameter, check_parameter: ParameterCheck, check: FileCheck) -> None:
    """Note every rule of the trial that the parameter's values break, at its place in the file."""
    distribution = parameter.distribution
    if isinstance(distribution, Constant):
        check_listed([((*place, "value"), distribution.value)], place, parameter.name, check_parameter, check)
    elif isinstance(distribution, Categorical):
        listed = [((*place, "values", index), value) for index, value in enumerate(distribution.values)]
        check_listed(listed, place, parameter.name, check_parameter, check)
    else:
        _check_numeric(place, parameter, check_parameter, check)


def check_listed(
    listed: list[tuple[Location, Any]],
    place: Location,
    name: str,
    check_parameter: ParameterCheck,
    check: FileCheck,
) -> None:
    """Note the rules that listed values of one parameter break, each at its own place."""
    broken = [
        (where, rule)
        for where, value in listed
        for leaf_name, leaf in _leaves(name, value)
        if (rule := check_parameter(leaf_name, leaf))
    ]
    if len(broken) == len(listed) > 1 and len({rule for _, rule in broken}) == 1:
        broken = [(place, broken[0][1])]  # one rule about all of them, such as an unknown name
    for where, rule in broken:
        check.problem(where, rule)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A mapping as a value is a group of parameters to the trial."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for inner_name, inner in value.items():
        yield from _leaves(inner_name, inner)


def _check_numeric(place: Location, parameter: Parameter, check_parameter: ParameterCheck, check: FileCheck) -> None:
    distribution = parameter.distribution
    kind = distribution.kind
    lowest, highest = practical_range(distribution)
    ends: list[tuple[Location, Any]] = [((*place, "min"), lowest), ((*place, "max"), highest)]
    fading = kind.removeprefix("q_") in ("normal", "log_normal", "beta")
    if fading:
        ends = [(place, _draw(distribution, quantile)) for quantile in (_COMMON_TAIL, 1 - _COMMON_TAIL)]
    elif kind == "inv_log_uniform":  # its max gives the lowest value
        ends = [(place, lowest), (place, highest)]
    probes = [*ends, *((place, _draw(distribution, quantile)) for quantile in _INNER_QUANTILES)]
    broken = [(where, rule) for where, value in probes if (rule := check_parameter(parameter.name, value))]
    if len(broken) == len(probes) and len({rule for _, rule in broken}) == 1:
        check.problem(place, broken[0][1])  # one rule about all of them, such as an unknown name
    elif broken:
        for where, rule in [entry for entry in broken if entry[0] != place] or broken[:1]:
            check.problem(where, f"{rule} ({kind} draws from {lowest:g} to {highest:g}).")
    elif fading:
        tails = (_draw(distribution, quantile) for quantile in PRACTICAL_QUANTILES)
        rare = next((rule for value in tails if (rule := check_parameter(parameter.name, value))), None)
        if rare:
            check.warn(place, f"a trial that draws such a value fails: {rare}. A range avoids it.")


def _draw(distribution: Distribution, quantile: float) -> Any:
    """A value to ask about, with few digits, because the trial's rule shows it."""
    value = distribution.from_quantile(quantile)
    return float(f"{value:.6g}") if isinstance(value, float) else value
