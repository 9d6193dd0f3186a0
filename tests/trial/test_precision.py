from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tune_cifar.trial import precision
from tune_cifar.trial.config import PARAMETERS, PRECISION_CHOICES
from tune_cifar.trial.precision import choose_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("choice", ["fp32", "bf16"])
def test_what_is_asked_for_is_kept(choice: str) -> None:
    assert choose_precision(choice, CPU).name == choice
    assert choose_precision(choice, GPU).name == choice


@pytest.mark.parametrize(
    ("features", "expected", "reason"),
    [
        (["avx512_bf16"], "bf16", "the CPU has avx512_bf16"),
        (["avx512_bf16", "amx"], "bf16", "the CPU has avx512_bf16 and amx"),
        ([], "fp32", "the CPU has neither avx512_bf16 nor amx"),
    ],
)
def test_auto_follows_the_cpu(monkeypatch: pytest.MonkeyPatch, features: list[str], expected: str, reason: str) -> None:
    monkeypatch.setattr(precision, "cpu_bf16_features", lambda: features)
    chosen = choose_precision("auto", CPU)
    assert (chosen.name, chosen.reason) == (expected, reason)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_follows_the_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    chosen = choose_precision("auto", GPU)
    assert chosen.name == expected
    assert f"{capability[0]}.{capability[1]}" in chosen.reason


def test_the_features_are_those_that_linux_lists() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        pytest.skip("there is no /proc/cpuinfo here")
    flags = cpuinfo.read_text().split()
    assert ("avx512_bf16" in precision.cpu_bf16_features()) == ("avx512_bf16" in flags)
    assert ("amx" in precision.cpu_bf16_features()) == ("amx_tile" in flags)


def test_the_choices_are_those_of_the_config() -> None:
    assert [PARAMETERS["precision"].check(choice) for choice in PRECISION_CHOICES] == [None] * 3
    assert PARAMETERS["precision"].check("fp16")
    with pytest.raises(ValueError, match="fp16"):
        choose_precision("fp16", CPU)


def test_weights_stay_fp32_and_products_are_bf16() -> None:
    layer = torch.nn.Linear(8, 8)
    with choose_precision("bf16", CPU).autocast(CPU):
        assert layer(torch.ones(2, 8)).dtype == torch.bfloat16
    with choose_precision("fp32", CPU).autocast(CPU):
        assert layer(torch.ones(2, 8)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32
