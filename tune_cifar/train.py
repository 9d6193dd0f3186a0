"""`python -m tune_cifar.train`: one training run outside a search, with the same numbers that it has in one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console

from tune_cifar.command import EXIT_NOTHING_FINISHED, add_data_flags, run_command, thread_count
from tune_cifar.errors import UserError
from tune_cifar.publish.best_model import write_model
from tune_cifar.trial.batches import DeviceImages
from tune_cifar.trial.config import PARAMETERS, TrialConfig
from tune_cifar.trial.data import load_dataset
from tune_cifar.trial.device import choose_device, describe_device, prepare_device
from tune_cifar.trial.evaluation import evaluate_model
from tune_cifar.trial.training import EpochResult, TrainingRun
from tune_cifar.versions import installed_versions


def main(arguments: Sequence[str]) -> int:
    """Train one config, print each epoch, and write the model of the last one."""
    args = _parse(arguments)
    parameters = {name: getattr(args, name) for name in PARAMETERS if getattr(args, name) is not None}
    config = TrialConfig.from_parameters(parameters)
    console = Console()
    try:
        args.output.mkdir(parents=True, exist_ok=True)  # before hours of training
    except OSError as error:
        raise UserError(f"--output {args.output}: {error.strerror}. Choose a folder that can be written.") from None
    data = load_dataset(args.data or "cifar10", train_images=args.train_images)
    device = choose_device()
    prepare_device(device, cpu_threads=args.cpu_threads)
    console.print(f"config   {' '.join(f'{k}={v}' for k, v in config.as_dict().items())}", soft_wrap=True)
    console.print(f"data     {data.name}: {len(data.train)} training, {len(data.validation)} validation images")
    console.print(f"device   {describe_device(device)}")

    run = TrainingRun(config, data, device)
    console.print(f"precision {run.precision.name}: {run.precision.reason}")
    for note in run.notes:
        console.print(f"note     {note}", soft_wrap=True)
    result = None
    for result in run.epochs():
        console.print(_describe(result, config), highlight=False)
    if result is None or result.status == "diverged":
        return EXIT_NOTHING_FINISHED
    test_loss, test_accuracy = evaluate_model(run.network, DeviceImages.from_split(data.test, device))
    path = write_model(
        args.output,
        run.network.state_dict(),
        config=config,
        trial_id="train",
        epoch=result.epoch,
        metric="val_loss",
        metric_value=result.val_loss or 0.0,
        scores=_scores(result, test_loss, test_accuracy),
        class_names=data.class_names,
        data=data.name,
        data_fingerprint=data.fingerprint,
        versions=installed_versions(),
    )
    console.print(f"test     loss {test_loss:.4f}, accuracy {test_accuracy:.4f} on {len(data.test)} images")
    console.print(f"model    {path}", soft_wrap=True)
    console.print(f"next     python -m tune_cifar.evaluate {path} --data {args.data or 'cifar10'}", soft_wrap=True)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tune_cifar.train", description="Train one network, exactly as a trial of a search would."
    )
    defaults = TrialConfig()
    for field in fields(TrialConfig):
        default = getattr(defaults, field.name)
        kind: dict[str, Any] = {"type": type(default)}
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        flag = "--" + field.name.replace("_", "-")
        description = f"{PARAMETERS[field.name].description} (default {default})"
        parser.add_argument(flag, dest=field.name, help=description, default=None, **kind)
    add_data_flags(parser)
    parser.add_argument(
        "--cpu-threads",
        type=thread_count,
        default=1,
        metavar="N",
        help="threads on a CPU (default 1, as in a search; another number changes the last digits of the results)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/train"), metavar="DIR", help="where the model goes"
    )
    return parser.parse_args(arguments)


def _describe(result: EpochResult, config: TrialConfig) -> str:
    start = f"epoch {result.epoch}/{config.epochs}"
    if result.status == "diverged":
        return f"{start}  {result.message}"
    train_loss = f"{result.train_log[-1][2]:.4f}"
    return (
        f"{start}  train_loss {train_loss}  val_loss {result.val_loss:.4f}  "
        f"val_accuracy {result.val_accuracy:.4f}  {result.epoch_seconds:.1f} s"
    )


def _scores(result: EpochResult, test_loss: float, test_accuracy: float) -> dict[str, float]:
    scores = {"val_loss": result.val_loss, "val_accuracy": result.val_accuracy}
    scores |= {"test_loss": test_loss, "test_accuracy": test_accuracy}
    return {name: value for name, value in scores.items() if value is not None}


if __name__ == "__main__":
    sys.exit(run_command(main))
