"""Mistakes with models; right ones are evaluated in test_search.py and publish/test_round_trip.py."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from tests.commands import run_here
from tune_cifar import evaluate
from tune_cifar.trial.checkpoint import save_weights
from tune_cifar.trial.model import build_model


def _weights(path: Path, num_classes: int = 10) -> Path:
    save_weights(build_model("ResNet18", num_classes=num_classes, seed=0).state_dict(), path)
    return path


def test_a_model_without_a_manifest_is_known_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _weights(tmp_path / "ResNet18-epchs-5-bs-32-lr-0.1.pth")
    assert run_here(evaluate.main, [str(path), "--data", "digits"]) == 0
    output = capsys.readouterr().out
    assert "no manifest beside it" in output
    assert "on 359 images of digits" in output


def test_the_network_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _weights(tmp_path / "mine.pth")
    assert run_here(evaluate.main, [str(path), "--data", "digits"]) == 2
    assert "Say it with --model" in capsys.readouterr().err
    assert run_here(evaluate.main, [str(path), "--data", "digits", "--model", "resnet18"]) == 0


def test_what_does_not_fit_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Code(), protocol=2))
    torch.save([1, 2], tmp_path / "list.pth")
    _weights(tmp_path / "seven.pth", num_classes=7)
    for name in ("text", "empty", "code", "list", "seven"):
        arguments = [str(tmp_path / f"{name}.pth"), "--data", "digits", "--model", "ResNet18"]
        assert run_here(evaluate.main, arguments) == 2, name
        assert "does not hold the weights of ResNet18" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(evaluate.main, ["nowhere.pth"]) == 2
    assert capsys.readouterr().err == "error: There is no file nowhere.pth.\n"
