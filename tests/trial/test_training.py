from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset

from tune_cifar.trial.batches import normalise
from tune_cifar.trial.checkpoint import TRAINING_FILE, WEIGHTS_FILE, load_weights
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.device import prepare_device
from tune_cifar.trial.training import EpochResult, TrainingRun

CPU = torch.device("cpu")
CONFIG = TrialConfig(lr=0.01, batch_size=16, epochs=3)

MakeDataset = Callable[..., ImageDataset]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    prepare_device(CPU, cpu_threads=1)


def _numbers(results: list[EpochResult]) -> list[EpochResult]:
    """The results without their timings, which differ from run to run."""
    return [dataclasses.replace(result, epoch_seconds=0.0, average_epoch_seconds=None) for result in results]


def test_it_equals_the_tutorials_loop(make_dataset: MakeDataset) -> None:
    """The plain loop with a DataLoader and loss.item() at each step, in the same memory order.

    Another order rounds differently, and batch norm on 1x1 maps makes percents of that within six steps (measured).
    """
    data = make_dataset()
    run = TrainingRun(dataclasses.replace(CONFIG, lr=1e-4, epochs=2), data, CPU)
    network = torchvision.models.resnet18(num_classes=4)
    network.load_state_dict(run.network.state_dict())
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    criterion = torch.nn.CrossEntropyLoss()
    images = normalise(torch.from_numpy(data.train.images)).contiguous()
    labels = torch.from_numpy(data.train.labels)
    generator = torch.Generator().manual_seed(CONFIG.seed)
    for result in run.epochs():
        order = torch.randperm(len(labels), generator=generator)
        running_loss = 0.0
        network.train()
        for batch, target in DataLoader(TensorDataset(images[order], labels[order]), batch_size=16):
            optimizer.zero_grad()
            loss = criterion(network(batch.to(memory_format=torch.channels_last)), target)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        network.eval()
        with torch.inference_mode():
            scores = network(normalise(torch.from_numpy(data.validation.images)))
        val_labels = torch.from_numpy(data.validation.labels)
        assert result.train_log[-1][2] == pytest.approx(running_loss / 6, rel=1e-5)
        assert result.val_loss == pytest.approx(criterion(scores, val_labels).item(), rel=1e-5)
        assert result.val_accuracy == (scores.argmax(1) == val_labels).double().mean().item()


def test_rows_come_every_50_batches_with_the_fractional_epoch(make_dataset: MakeDataset) -> None:
    run = TrainingRun(TrialConfig(batch_size=2, epochs=2), make_dataset(num_train=244, num_validation=8), CPU)
    first, second = run.epochs()
    assert [(step, epoch) for step, epoch, _ in first.train_log] == [(1, 50 / 122), (2, 100 / 122)]
    assert [(step, epoch) for step, epoch, _ in second.train_log] == [(3, 1 + 50 / 122), (4, 1 + 100 / 122)]
    assert (first.epoch, first.step, second.epoch, second.step) == (1, 2, 2, 4)


def test_metrics_have_the_tutorials_names(make_dataset: MakeDataset) -> None:
    first, second = TrainingRun(TrialConfig(epochs=2), make_dataset(), CPU).epochs()
    tutorial = {"train_loss", "val_loss", "val_accuracy", "epoch_runtime (seconds)", "epoch"}
    assert tutorial <= set(first.metrics())
    assert "avg epoch runtime (seconds)" not in first.metrics()
    average = second.metrics()["avg epoch runtime (seconds)"]
    assert average == pytest.approx((first.epoch_seconds + second.epoch_seconds) / 2)
    assert (first.status, second.status) == ("running", "finished")


def test_the_same_seed_gives_the_same_numbers(make_dataset: MakeDataset) -> None:
    data = make_dataset()
    first, again = (_numbers(list(TrainingRun(CONFIG, data, CPU).epochs())) for _ in range(2))
    assert first == again
    other = TrainingRun(dataclasses.replace(CONFIG, seed=1), data, CPU)
    assert _numbers(list(other.epochs())) != first


@pytest.mark.parametrize("epochs_before", [1, 2, 3])
@pytest.mark.parametrize(
    "changes", [{}, {"augment": "flip_crop", "lr_schedule": "onecycle", "weight_decay": 1e-3, "nesterov": True}]
)
def test_a_resumed_run_ends_with_the_same_numbers(
    make_dataset: MakeDataset, tmp_path: Path, epochs_before: int, changes: dict[str, object]
) -> None:
    data = make_dataset()
    config = TrialConfig.from_parameters({**CONFIG.as_dict(), **changes})
    whole = TrainingRun(config, data, CPU)
    expected = list(whole.epochs())

    interrupted = TrainingRun(config, data, CPU)
    epochs = interrupted.epochs()
    results = [next(epochs) for _ in range(epochs_before)]
    interrupted.save(tmp_path)
    resumed = TrainingRun(config, data, CPU)
    resumed.load(tmp_path)
    results += resumed.epochs()

    assert _numbers(results) == _numbers(expected)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name])


def test_a_checkpoint_holds_plain_weights_and_no_optimizer_at_the_end(
    make_dataset: MakeDataset, tmp_path: Path
) -> None:
    run = TrainingRun(dataclasses.replace(CONFIG, epochs=2), make_dataset(), CPU)
    for result in run.epochs():
        folder = tmp_path / str(result.epoch)
        folder.mkdir()
        run.save(folder)
        torchvision.models.resnet18(num_classes=4).load_state_dict(load_weights(folder / WEIGHTS_FILE))
    assert (tmp_path / "1" / TRAINING_FILE).exists()
    assert not (tmp_path / "2" / TRAINING_FILE).exists()


def test_a_checkpoint_of_another_config_is_refused(make_dataset: MakeDataset, tmp_path: Path) -> None:
    data = make_dataset()
    TrainingRun(CONFIG, data, CPU).save(tmp_path)
    with pytest.raises(ValueError, match="is of"):
        TrainingRun(dataclasses.replace(CONFIG, lr=0.5), data, CPU).load(tmp_path)


def test_a_run_that_diverges_ends_with_that_status(make_dataset: MakeDataset) -> None:
    results = list(TrainingRun(TrialConfig(lr=1e30, epochs=3, batch_size=16), make_dataset(), CPU).epochs())
    assert [result.status for result in results] == ["diverged"]
    last = results[-1]
    assert last.val_loss is None
    assert last.message.startswith("diverged: train_loss is nan at epoch 1.00")
    assert all(math.isfinite(loss) for _, _, loss in last.train_log)


def test_label_smoothing_changes_training_but_not_the_validation_loss(make_dataset: MakeDataset) -> None:
    run = TrainingRun(TrialConfig(label_smoothing=0.5, epochs=1, lr=1e-9), make_dataset(), CPU)
    (result,) = run.epochs()
    data = make_dataset()
    with torch.inference_mode():
        scores = run.network.eval()(normalise(torch.from_numpy(data.validation.images)))
    plain = torch.nn.functional.cross_entropy(scores, torch.from_numpy(data.validation.labels)).item()
    assert result.val_loss == pytest.approx(plain, rel=1e-6)


def test_the_networks_own_data_is_not_changed(make_dataset: MakeDataset) -> None:
    data = make_dataset()
    before = data.train.images.copy()
    list(TrainingRun(dataclasses.replace(CONFIG, epochs=1, augment="flip_crop"), data, CPU).epochs())
    assert np.array_equal(data.train.images, before)
