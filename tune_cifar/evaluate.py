"""`python -m tune_cifar.evaluate`: the score of a saved model on the test images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from tune_cifar.command import add_data_flags, run_command, thread_count
from tune_cifar.errors import UserError
from tune_cifar.publish.fetching import fetched_model
from tune_cifar.publish.manifest import Manifest
from tune_cifar.publish.model_file import load_model_file
from tune_cifar.publish.remote_models import SOURCES
from tune_cifar.trial.batches import DeviceImages
from tune_cifar.trial.config import MODELS, torchvision_builder_name
from tune_cifar.trial.data import ImageDataset, load_dataset
from tune_cifar.trial.device import choose_device, describe_device, prepare_device
from tune_cifar.trial.evaluation import evaluate_model
from tune_cifar.trial.model import build_model


def main(arguments: Sequence[str]) -> int:
    """Print loss and accuracy of a model on the test images, and on the validation images if asked."""
    args = _parse(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    with fetched_model(args.source, console.print) as model:
        manifest = model.manifest
        data = load_dataset(args.data or "cifar10")
        device = choose_device()
        prepare_device(device, cpu_threads=args.cpu_threads)
        network = load_network(model.path, data, manifest, model=args.model, stem=args.stem).to(device)
    console.print(f"model    {model.shown}" + ("" if manifest else " (no manifest beside it)"))
    console.print(f"device   {describe_device(device)}")
    loss, accuracy = evaluate_model(network, DeviceImages.from_split(data.test, device))
    console.print(f"test     loss {loss:.4f}, accuracy {accuracy:.4f} on {len(data.test)} images of {data.name}")
    if manifest and manifest.data_fingerprint == data.fingerprint and "test_accuracy" in manifest.scores:
        console.print(f"         {manifest.scores['test_accuracy']:.4f} when it was written")
    elif manifest and manifest.data_fingerprint != data.fingerprint:
        console.print(f"note     the model was trained on other data ({manifest.data}), so scores may not compare")
    return 0


def load_network(
    path: Path, data: ImageDataset, manifest: Manifest | None, *, model: str | None, stem: str | None
) -> nn.Module:
    """Build the network that `path` holds the weights of; raises `UserError` when they do not fit."""
    name = model or (manifest.model if manifest else path.name.partition("-epchs-")[0])
    if torchvision_builder_name(name) is None:
        raise UserError(
            f"{path}: which network it is cannot be told from its name, and no manifest is beside it. "
            f"Say it with --model, one of {', '.join(MODELS)}."
        )
    chosen_stem = stem or (manifest.stem if manifest else "imagenet")
    network = build_model(name, num_classes=len(data.class_names), stem=chosen_stem, seed=0)
    try:
        network.load_state_dict(load_model_file(path))
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} does not hold the weights of {name} (stem {chosen_stem}) for {len(data.class_names)} classes: "
            f"{reason}"
        ) from None
    return network.to(memory_format=torch.channels_last)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tune_cifar.evaluate", description="Score a saved model on the test images."
    )
    parser.add_argument("source", metavar="MODEL", help=f"what publish wrote or is published: {SOURCES}")
    add_data_flags(parser)
    parser.add_argument("--model", help="the network, where no manifest.json beside the file names it")
    parser.add_argument("--stem", choices=["imagenet", "cifar"], help="its first layers, likewise")
    parser.add_argument("--cpu-threads", type=thread_count, default=torch.get_num_threads(), metavar="N")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
