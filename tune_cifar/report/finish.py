"""Ends a search: scores the best model on the test images, writes the results and says what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from tune_cifar.finalists import Finalist, describe_finalist
from tune_cifar.publish.best_model import write_model
from tune_cifar.report.mistakes import find_mistakes, save_mistakes
from tune_cifar.report.predictions import select_predictions
from tune_cifar.report.tables import BestModel, write_summary, write_trials
from tune_cifar.results import CAN_WIN, TrialRecord, count_by_status, show_score
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.schema import Metric
from tune_cifar.trial.batches import DeviceImages
from tune_cifar.trial.checkpoint import load_weights
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.device import choose_device
from tune_cifar.trial.evaluation import evaluate_model
from tune_cifar.trial.live_taps import with_all_taps
from tune_cifar.trial.model import build_model
from tune_cifar.trials_file import save_trials
from tune_cifar.versions import installed_versions

BEST_FOLDER = "best"


def write_results(
    folder: Path,
    *,
    trials: Sequence[TrialRecord],
    best: TrialRecord | None,
    best_weights: Path | None,
    metric: Metric,
    data: ImageDataset,
    interrupted: bool,
    stopped_by: str | None = None,
    wall_seconds: float,
    finalists: Sequence[Finalist] = (),
    winner: Finalist | None = None,
) -> BestModel | None:
    """Write trials.json, trials.csv, best/ and summary.json of a search into `folder`; returns the best model, if any.

    The test images are read here and in `evaluate` only. An interrupted search gets the same files,
    with what has finished, and summary.json says that it is not complete.
    """
    save_trials(folder, trials, "interrupted" if interrupted else "complete")
    write_trials(folder, trials, metric)
    model = _export(folder, best, best_weights, metric, data) if best and best_weights else None
    write_summary(
        folder,
        name=folder.name,
        metric=metric,
        trials=trials,
        best=model,
        interrupted=interrupted,
        stopped_by=stopped_by,
        wall_seconds=wall_seconds,
        data={
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train_images": len(data.train),
            "validation_images": len(data.validation),
            "test_images": len(data.test),
        },
        versions=installed_versions(),
        finalists=finalists,
        winner=winner,
    )
    return model


def print_finalists(
    finalists: Sequence[Finalist], winner: Finalist | None, best: TrialRecord | None, metric: Metric, console: Console
) -> None:
    """Print the mean and spread of each configuration that was trained again, and what is taken from the best."""
    if finalists:
        console.print()
    for finalist in finalists:
        line = describe_finalist(finalist, metric, won=finalist is winner)
        console.print(f"finalist {line}", soft_wrap=True, markup=False)
    if winner and best:
        model = f"the model is its best run, trial {best.number}"
        console.print(f"winner   trial {winner.number} by the mean over its seeds; {model}", soft_wrap=True)
    elif finalists:
        console.print("winner   none yet: repeats are left, so the best model is that of a single run", soft_wrap=True)


def _export(folder: Path, best: TrialRecord, weights: Path, metric: Metric, data: ImageDataset) -> BestModel:
    config = TrialConfig.from_parameters(best.config)
    device = choose_device()
    network = build_model(config.model, num_classes=len(data.class_names), stem=config.stem, seed=config.seed)
    network.load_state_dict(with_all_taps(load_weights(weights), network.state_dict()))
    outputs: list[torch.Tensor] = []
    test_images = DeviceImages.from_split(data.test, device)
    test_loss, test_accuracy = evaluate_model(network.to(device), test_images, outputs)
    test_scores = torch.cat(outputs).softmax(dim=1).cpu().numpy()
    epoch = best.best_epoch(metric) or {}
    scores = {name: float(epoch[name]) for name in ("val_loss", "val_accuracy")}
    scores |= {"test_loss": test_loss, "test_accuracy": test_accuracy}
    best_folder = folder / BEST_FOLDER
    if best_folder.is_dir():
        # A resumed search may find a better model than the one it had exported when it was interrupted.
        for old in (*best_folder.glob("*.pth"), *best_folder.glob("*.onnx")):
            old.unlink()
    path = write_model(
        best_folder,
        network.state_dict(),
        config=config,
        trial_id=best.trial_id,
        epoch=int(epoch["epoch"]),
        metric=metric.name,
        metric_value=float(epoch[metric.name]),
        scores=scores,
        class_names=data.class_names,
        data=data.name,
        data_fingerprint=data.fingerprint,
        versions=installed_versions(),
    )
    save_mistakes(best_folder, find_mistakes(select_predictions(data, test_scores, "all")))
    return BestModel(
        trial_id=best.trial_id,
        number=best.number,
        config=best.config,
        epoch=int(epoch["epoch"]),
        model=str(path.relative_to(folder)),
        test_scores=test_scores,
        **scores,
    )


def print_results(
    folder: Path,
    trials: Sequence[TrialRecord],
    model: BestModel | None,
    settings: SearchSettings,
    lessons: Sequence[str],
    console: Console,
) -> None:
    """Print what was found, what it teaches, and the next commands to type."""
    counts = ", ".join(f"{number} {status}" for status, number in count_by_status(trials).items())
    console.print(f"\ntrials   {counts or 'none'}; all of them in {folder / 'trials.csv'}", soft_wrap=True)
    for trial in trials:
        if trial.status == "failed":
            console.print(f"failed   trial {trial.number}: {trial.message}", soft_wrap=True, markup=False)
    if model is None:
        if not any(trial.status in CAN_WIN for trial in trials):
            console.print("best     none: no trial finished")
        return
    config = TrialConfig.from_parameters(model.config)
    flags = " ".join(_flag(name, value) for name, value in _unlike_default(config).items())
    data = f"--data {shlex.quote(settings.data)}"
    subset = f" --train-images {settings.train_images}" if settings.train_images else ""
    best = {
        "best": f"trial {model.number}, epoch {model.epoch}: {_in_words(config)}",
        "": f"val_loss {show_score(model.val_loss)}, val_accuracy {model.val_accuracy:.4f}, "
        f"test_accuracy {model.test_accuracy:.4f}",
    }
    further = {
        "model": str(folder / model.model),
        "next": f"python -m tune_cifar.evaluate {folder / model.model} {data}",
        " ": f"python -m tune_cifar.train {flags} {data}{subset}",
    }
    for name, text in [*best.items(), *(("learned", line) for line in lessons), *further.items()]:
        console.print(f"{name:<9}{text}", soft_wrap=True, markup=False)


def _unlike_default(config: TrialConfig) -> dict[str, object]:
    defaults = TrialConfig().as_dict()
    always = ("model", "lr", "batch_size", "epochs")
    return {k: v for k, v in config.as_dict().items() if k in always or v != defaults[k]}


def _flag(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag} {value}"


def _in_words(config: TrialConfig) -> str:
    return " ".join(f"{name}={value}" for name, value in _unlike_default(config).items())
