from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset

from tune_cifar.trial import precision
from tune_cifar.trial.batches import normalise
from tune_cifar.trial.checkpoint import TRAINING_FILE, WEIGHTS_FILE, TrainedTensors, load_checkpoint, load_weights
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.device import prepare_device
from tune_cifar.trial.live_taps import with_all_taps
from tune_cifar.trial.model import build_model
from tune_cifar.trial.training import EpochResult, TrainingRun

CPU = torch.device("cpu")
CONFIG = TrialConfig(lr=0.01, batch_size=16, epochs=3)

MakeDataset = Callable[..., ImageDataset]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    prepare_device(CPU, cpu_threads=1)


def _numbers(results: list[EpochResult]) -> list[EpochResult]:
    """The results without their timings, which differ from run to run."""
    return [
        dataclasses.replace(
            result,
            epoch_seconds=0.0,
            average_epoch_seconds=None,
            started_at=0.0,
            trained_at=0.0,
            validation_seconds=None,
        )
        for result in results
    ]


def _to_float64(run: TrainingRun) -> None:
    """Let a run compute in float64, where two ways that are equal but for rounding stay together."""
    run.network.double()
    run.network.register_forward_pre_hook(lambda _network, images: images[0].double())
    for buffer in run.program.momentum():
        buffer.data = buffer.data.double()
    run.program.still_weights = [(weight, torch.zeros_like(weight)) for weight, _ in run.program.still_weights]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "ResNet34", "momentum": 0.0},
        {"weight_decay": 0.01, "nesterov": True, "label_smoothing": 0.1, "lr_schedule": "cosine"},
    ],
)
def test_it_equals_the_tutorials_loop(make_dataset: MakeDataset, changes: dict[str, Any]) -> None:
    """torchvision's own network, a DataLoader and loss.item() at each step, all in float64."""
    data = make_dataset()
    config = dataclasses.replace(CONFIG, epochs=2, precision="fp32", **{"lr": 1e-4, **changes})
    run = TrainingRun(config, data, CPU)
    network: torch.nn.Module = torchvision.models.get_model(config.model.lower(), num_classes=4).double()
    network.load_state_dict(run.network.state_dict())
    _to_float64(run)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    schedule = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12) if config.lr_schedule != "constant" else None
    )
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    images, validation_images = (
        normalise(torch.from_numpy(part.images)).contiguous().double() for part in (data.train, data.validation)
    )
    labels, validation_labels = (torch.from_numpy(part.labels) for part in (data.train, data.validation))
    generator = torch.Generator().manual_seed(CONFIG.seed)
    for result in run.epochs():
        order = torch.randperm(len(labels), generator=generator)
        running_loss = 0.0
        network.train()
        for batch, target in DataLoader(TensorDataset(images[order], labels[order]), batch_size=16):
            optimizer.zero_grad()
            loss = criterion(network(batch), target)
            loss.backward()
            optimizer.step()
            if schedule:
                schedule.step()
            running_loss += loss.item()
        network.eval()
        with torch.inference_mode():
            scores = network(validation_images)
            val_loss = torch.nn.functional.cross_entropy(scores, validation_labels).item()
        # 1e-5: losses are summed, and those of the validation computed, in fp32.
        assert result.train_log[-1][2] == pytest.approx(running_loss / 6, rel=1e-5)
        assert result.val_loss == pytest.approx(val_loss, rel=1e-5)
        assert result.val_accuracy == (scores.argmax(1) == validation_labels).double().mean().item()
    for name, tensor in network.state_dict().items():
        # Batch norm over one-pixel maps makes 1e-10 of rounding within these 12 steps (measured).
        assert (run.network.state_dict()[name] - tensor).abs().max() < 1e-8, name


def test_precision_is_in_the_checkpoint_and_another_one_is_said(
    make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_bf16_features", lambda: ["avx512_bf16"])
    run = TrainingRun(CONFIG, make_dataset(), CPU)
    assert (run.precision.name, run.notes) == ("bf16", [])
    next(run.epochs())
    run.save(tmp_path)
    monkeypatch.setattr(precision, "cpu_bf16_features", list)
    elsewhere = TrainingRun(CONFIG, make_dataset(), CPU)
    elsewhere.load(tmp_path)
    assert elsewhere.notes == ["goes on in fp32 what was begun in bf16: the CPU has neither avx512_bf16 nor amx"]


def test_a_stopped_run_ends_within_a_step(make_dataset: MakeDataset) -> None:
    run = TrainingRun(dataclasses.replace(CONFIG, epochs=1000), make_dataset(), CPU)
    epochs = run.epochs()
    next(epochs)
    run.stop()
    assert list(epochs) == []
    assert run.epochs_done == 1


def test_progress_tells_epoch_and_share_at_every_step(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(TrialConfig(batch_size=16, epochs=2), make_dataset(num_train=64, num_validation=8), CPU)
    assert (run.progress().epoch, run.progress().share) == (1, 0.0)
    seen = []
    step = run.program.step

    def watched_step(num_images: int) -> None:
        seen.append(run.progress())
        step(num_images)

    monkeypatch.setattr(run.program, "step", watched_step)
    list(run.epochs())
    assert [(progress.epoch, progress.share) for progress in seen] == [
        (epoch, batch / 4) for epoch in (1, 2) for batch in range(4)
    ]
    assert (run.progress().epoch, run.progress().share) == (2, 1.0)
    assert 0 < seen[-1].images_per_second <= 48 / min(run.epoch_seconds) * 10


def test_the_rate_of_an_epochs_last_step_is_in_its_result(make_dataset: MakeDataset) -> None:
    config = TrialConfig(batch_size=16, epochs=2, lr=0.01, lr_schedule="cosine")
    first, second = TrainingRun(config, make_dataset(num_train=64, num_validation=8), CPU).epochs()
    rates = [0.01 * (1 + math.cos(math.pi * step / 8)) / 2 for step in (3, 7)]
    assert [first.metrics()["lr"], second.metrics()["lr"]] == pytest.approx(rates)


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
        initial = build_model("ResNet18", num_classes=4, seed=CONFIG.seed).state_dict()
        whole = with_all_taps(load_weights(folder / WEIGHTS_FILE), initial)
        torchvision.models.resnet18(num_classes=4).load_state_dict(whole)
        for name, tensor in run.network.state_dict().items():
            assert torch.equal(whole[name], tensor), name
    assert (tmp_path / "1" / TRAINING_FILE).exists()
    assert not (tmp_path / "2" / TRAINING_FILE).exists()


def test_tensors_are_copied_before_the_validation_and_can_be_written_after_more_training(
    make_dataset: MakeDataset, tmp_path: Path
) -> None:
    """What a search does, against the state between epochs."""
    copies: list[TrainedTensors] = []
    run = TrainingRun(CONFIG, make_dataset(), CPU)
    epochs = run.epochs(lambda: copies.append(run.copy_tensors()))
    next(epochs)
    run.save(tmp_path)
    next(epochs)
    expected, early = load_checkpoint(tmp_path).tensors, copies[0]
    for name, tensor in expected.weights.items():
        assert torch.equal(early.weights[name], tensor), name
    assert early.momentum
    assert expected.momentum
    assert all(torch.equal(copy, saved) for copy, saved in zip(early.momentum, expected.momentum, strict=True))
    assert early.generator is not None
    assert expected.generator is not None
    assert torch.equal(early.generator, expected.generator)


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
