"""Values in words for people, for the report and the terminal, and without Ray, which a report does not need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def show_value(value: Any) -> str:
    """A parameter's value; of a float the four leading digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_seconds(seconds: float) -> str:
    """A duration in its two largest units, such as `2 h 5 min`."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600:,} h {rounded % 3600 // 60} min"


def show_config(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """Some parameters of a flat config in one line, nested names by their last part."""
    return ", ".join(f"{name.rpartition('.')[2]} {show_value(config[name])}" for name in names if name in config)


def count(number: int, noun: str) -> str:
    """A number with its noun, such as `1 trial` and `3 trials`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high` for a logarithmic axis: few of them over a wide range, 1-2-5 over a narrow."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
