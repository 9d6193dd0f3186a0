"""The keys and the formula of every distribution, one table for the checks, the errors and the documentation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """The rules of one distribution: its keys, and how its value comes from U, uniform on [0, 1]."""

    formula: str
    required: tuple[str, ...] = ()
    defaults: tuple[tuple[str, float], ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that goes with it, `distribution` aside."""
        return (*self.required, *(name for name, _ in self.defaults))


_BOUNDS = ("min", "max")
_NORMAL = (("mu", 0.0), ("sigma", 1.0))
_BETA = (("a", 1.0), ("b", 1.0))
_STEP = ("q", 1.0)

KINDS: dict[str, Kind] = {
    "constant": Kind("value", ("value",)),
    "categorical": Kind("one of values, each as probable", ("values",)),
    "categorical_w_probabilities": Kind("one of values, by probabilities", ("values", "probabilities")),
    "int_uniform": Kind("min + floor(U * (max - min + 1))", _BOUNDS),
    "uniform": Kind("min + U * (max - min)", _BOUNDS),
    "log_uniform": Kind("exp(min + U * (max - min))", _BOUNDS),
    "log_uniform_values": Kind("min * (max / min)^U", _BOUNDS),
    "inv_log_uniform": Kind("exp(-(max - U * (max - min)))", _BOUNDS),
    "inv_log_uniform_values": Kind("min * (max / min)^U", _BOUNDS),
    "normal": Kind("mu + sigma * Phi^-1(U)", (), _NORMAL),
    "log_normal": Kind("exp(mu + sigma * Phi^-1(U))", (), _NORMAL),
    "beta": Kind("I^-1(U; a, b), from 0 to 1", (), _BETA),
    "q_uniform": Kind("round(uniform / q) * q", _BOUNDS, (_STEP,)),
    "q_log_uniform": Kind("round(log_uniform / q) * q", _BOUNDS, (_STEP,)),
    "q_log_uniform_values": Kind("round(log_uniform_values / q) * q", _BOUNDS, (_STEP,)),
    "q_normal": Kind("round(normal / q) * q", (), (*_NORMAL, _STEP)),
    "q_log_normal": Kind("round(log_normal / q) * q", (), (*_NORMAL, _STEP)),
    "q_beta": Kind("round(beta / q) * q", (), (*_BETA, _STEP)),
}
