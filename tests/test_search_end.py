"""The end of a search, where whole searches cannot be made to fail."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from tune_cifar.console import SearchConsole
from tune_cifar.request import SearchRequest
from tune_cifar.search_end import export_model
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.load import load_sweep
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter
from tune_cifar.trial.data import ImageDataset


def test_an_export_that_fails_is_told_and_lets_the_search_end(
    tmp_path: Path, make_dataset: Callable[..., ImageDataset]
) -> None:
    """Here the best model is gone, with its manifest."""
    (tmp_path / "sweep.yaml").write_text("method: random\nparameters: {lr: {min: 0.001, max: 0.01}}\n")
    config = load_sweep(tmp_path / "sweep.yaml", check_parameter, EPOCH_METRICS)
    settings = SearchSettings("digits", 100, None, 0, None, None, 2, "auto")
    output = io.StringIO()
    request = SearchRequest(config, settings, tmp_path, "disabled", False, SearchConsole(file=output), export_onnx=True)
    assert export_model(request, make_dataset()) == 1
    assert output.getvalue().startswith("failed   to export: ")
    assert output.getvalue().count("\n") == 1
