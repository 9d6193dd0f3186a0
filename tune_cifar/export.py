"""`python -m tune_cifar.export results/NAME onnx`: the best model of a search in a form for programs without torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console

from tune_cifar.command import run_command, thread_count
from tune_cifar.errors import UserError
from tune_cifar.evaluate import load_network
from tune_cifar.publish.manifest import add_file, difference, find_manifest
from tune_cifar.publish.onnx_export import OnnxError, check_onnx, export_onnx
from tune_cifar.publish.record import PUBLISHED_FILE
from tune_cifar.report.finish import BEST_FOLDER
from tune_cifar.settings import load_settings
from tune_cifar.trial.data import ImageDataset, load_dataset

EXIT_DIFFERS = 1
NUM_CHECK_IMAGES = 256
_MEGABYTE = 1e6


def main(arguments: Sequence[str]) -> int:
    """Export the best model of a search; exit code 1 if what was written does not answer as torch."""
    args = _parse(arguments)
    torch.set_num_threads(args.cpu_threads)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    check_onnx()
    settings, _ = load_settings(args.search)
    find_manifest(args.search / BEST_FOLDER)  # a search without a model is told before the images are read
    if not export_best(args.search, load_dataset(args.data or settings.data), console.print):
        return EXIT_DIFFERS
    if (args.search / PUBLISHED_FILE).is_file():
        console.print("note     the model was published before; python -m tune_cifar.publish … --again adds this file")
    return 0


def export_best(search: Path, data: ImageDataset, say: Callable[[str], None]) -> bool:
    """Write best/<model>.onnx of the search in that folder and list it in the manifest, or `say` why it is of no use.

    Returns whether it answers as torch does. Raises `UserError` where the weights are not those of the manifest.
    """
    folder = search / BEST_FOLDER
    manifest = find_manifest(folder)
    weights_file = folder / manifest.file
    problem = difference(weights_file, manifest, manifest.file) if weights_file.is_file() else "it is not there"
    if problem:
        raise UserError(f"{weights_file} is not the file that the manifest beside it describes: {problem}.")
    network = load_network(weights_file, data, manifest, model=None, stem=None)
    target = weights_file.with_suffix(".onnx")
    images = data.test.images[:NUM_CHECK_IMAGES]
    try:
        largest = export_onnx(network, manifest, images, target)
    except OnnxError as error:
        say(f"failed   {target}: {error}.")
        return False
    add_file(target)
    say(
        f"onnx     {target}: {target.stat().st_size / _MEGABYTE:.1f} MB, predicts as torch does on {len(images)} test "
        f"images, logits within {largest:.0e}"
    )
    return True


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tune_cifar.export", description="Write the best model of a search for programs without torch."
    )
    parser.add_argument("search", type=Path, metavar="results/NAME", help="the folder of the search")
    parser.add_argument("format", choices=["onnx"], help="onnx: best/<model>.onnx, which is published with the rest")
    parser.add_argument("--data", metavar="cifar10|digits|PATH", help="the images, if not where the search had them")
    parser.add_argument("--cpu-threads", type=thread_count, default=torch.get_num_threads(), metavar="N")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
