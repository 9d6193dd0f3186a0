"""Single runs; that they repeat a search's trial to the digit is tested in test_search.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import run_here
from tune_cifar import train

SMALL = ["--data", "digits", "--train-images", "60", "--batch-size", "16"]


def test_a_run_writes_its_model_and_prints_each_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SMALL, "--epochs", "2", "--lr", "0.001", "--nesterov", "--output", str(tmp_path)]
    assert run_here(train.main, arguments) == 0
    output = capsys.readouterr().out
    assert "epoch 1/2" in output
    assert "epoch 2/2" in output
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["config"]["nesterov"] is True
    assert (tmp_path / "ResNet18-epchs-2-bs-16-lr-0.001.pth").is_file()


def test_a_run_that_diverges_exits_with_1_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(train.main, [*SMALL, "--epochs", "2", "--lr", "1e30", "--output", str(tmp_path)]) == 1
    assert "diverged: train_loss is nan" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run_here(train.main, [*SMALL, "--output", str(tmp_path / "file" / "x")]) == 2
    captured = capsys.readouterr()
    assert captured.err.endswith("file/x: Not a directory. Choose a folder that can be written.\n")
    assert "epoch" not in captured.out


def test_mistakes_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(train.main, ["--lr", "-1", "--model", "vgg16", "--data", "digits"]) == 2
    errors = capsys.readouterr().err
    assert "lr: must be above 0, got -1.0" in errors
    assert "model: must be a torchvision ResNet, got 'vgg16'" in errors
