"""Trains the tutorial's whole space once, as a table of real curves in which searches can then be simulated.

`python benchmarks/make_table.py` takes one to two hours on two cores, with a fixed subset of 10,000 images; on a
GPU it trains on all of them. Stopped, it goes on where it was; the table is written when all runs are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import describe_machine
from benchmarks.trial_runs import DEFAULT_DATA, Record, default_processes, train_all
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.device import choose_device

MODELS = ("ResNet18", "ResNet34")
BATCH_SIZES = (32, 128)
LEARNING_RATES = tuple(round(10 ** (-4 + 3 * step / 12), 7) for step in range(13))
"""13 rates, evenly spaced in the logarithm from 1e-4 to 1e-1."""

CPU_TRAIN_IMAGES = 10_000
TABLE = Path("benchmarks/tables/tutorial.json")


def table_configs(num_seeds: int, num_epochs: int) -> list[TrialConfig]:
    """Every point of the space, all of them with one seed before the next, so that a part is already of use."""
    points = itertools.product(range(num_seeds), MODELS, BATCH_SIZES, LEARNING_RATES)
    return [
        TrialConfig(model=model, batch_size=batch_size, lr=lr, seed=seed, epochs=num_epochs)
        for seed, model, batch_size, lr in points
    ]


def table_run(record: Record) -> Record:
    """A record as a row of the table."""
    config = record["config"]
    return {name: config[name] for name in ("model", "batch_size", "lr", "seed")} | {"epochs": record["epochs"]}


def main() -> None:
    """Train what is missing, then write the table with its provenance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=DEFAULT_DATA, help="as for a search (default TUNE_CIFAR_DATA)")
    parser.add_argument("--train-images", type=int, help=f"default {CPU_TRAIN_IMAGES} on a CPU, all on a GPU")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--processes", type=int, default=default_processes())
    parser.add_argument("--log", type=Path, default=TABLE.with_suffix(".partial.jsonl"), help="runs as they end")
    parser.add_argument("--output", type=Path, default=TABLE)
    args = parser.parse_args()
    device = choose_device()
    train_images = args.train_images or (None if device.type == "cuda" else CPU_TRAIN_IMAGES)
    configs = table_configs(args.seeds, args.epochs)
    records = []
    for record in train_all(configs, args.log, data=args.data, train_images=train_images, num_processes=args.processes):
        records.append(record)
        config, last = record["config"], record["epochs"][-1]
        score = "diverged" if last["val_loss"] is None else f"val_loss {last['val_loss']:.4f}"
        settings = f"{config['model']} batch {config['batch_size']} lr {config['lr']:g} seed {config['seed']}"
        print(f"{len(records)}/{len(configs)}  {settings}: {score}", flush=True)
    provenance = {
        "made_by": "python " + " ".join(sys.argv),
        "what": "validation loss and accuracy after each epoch on 5,000 validation images, by tune_cifar's own trial",
        "data": "JPEG copies (quality 75) of CIFAR-10 (Krizhevsky 2009)",
        "data_fingerprint": sorted({record["data"] for record in records}),
        "train_images": sorted({record["train_images"] for record in records}),
        "precision": sorted({record["precision"] for record in records}),
        "machine": describe_machine(device),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    runs = ",\n".join(json.dumps(table_run(record)) for record in records)
    args.output.write_text(f'{{"provenance": {json.dumps(provenance)},\n"runs": [\n{runs}\n]}}\n')
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
