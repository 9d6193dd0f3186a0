from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from tune_cifar.trial.batches import DeviceImages
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.device import prepare_device
from tune_cifar.trial.precision import Precision
from tune_cifar.trial.program import TrainingProgram
from tune_cifar.trial.recording import CudaGraphRecorder
from tune_cifar.trial.training import EpochResult, TrainingRun
from tune_cifar.trial.workbench import MAX_PROGRAMS, Workbench

CPU = torch.device("cpu")
CONFIG = TrialConfig(lr=0.01, batch_size=16, epochs=2)

MakeDataset = Callable[..., ImageDataset]


class RepeatingRecorder:
    """Does on the CPU what a recorder of CUDA graphs does: steps run at each replay, and none while recording."""

    num_recordings = 0

    def __init__(self, _device: torch.device) -> None:
        type(self).num_recordings += 1

    def warm_up(self, step: Callable[[], None]) -> None:
        step()

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        return step


class RefusingRecorder(RepeatingRecorder):
    """A GPU whose driver does not capture."""

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        step()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    prepare_device(CPU, cpu_threads=1)
    RepeatingRecorder.num_recordings = 0


def _numbers(run: TrainingRun) -> list[EpochResult]:
    return [
        dataclasses.replace(
            result,
            epoch_seconds=0.0,
            average_epoch_seconds=None,
            started_at=0.0,
            trained_at=0.0,
            validation_seconds=None,
        )
        for result in run.epochs()
    ]


@pytest.mark.parametrize("changes", [{}, {"augment": "flip_crop", "weight_decay": 0.01, "lr_schedule": "cosine"}])
def test_trials_that_share_a_recording_equal_trials_of_their_own(
    make_dataset: MakeDataset, changes: dict[str, object]
) -> None:
    """The second trial finds the weights, momentum, batch norm and sums of the first in the shared tensors."""
    data = make_dataset(num_train=88)  # five steps of 16 and one of 8
    workbench = Workbench(data, CPU, RepeatingRecorder)
    for trial in ({"lr": 0.01, "seed": 0}, {"lr": 0.003, "seed": 5, "epochs": 3}, {"lr": 0.01, "seed": 0}):
        config = TrialConfig.from_parameters({**CONFIG.as_dict(), **changes, **trial})
        shared = TrainingRun(config, data, CPU, workbench)
        assert shared.notes == []
        assert _numbers(shared) == _numbers(TrainingRun(config, data, CPU))
    assert RepeatingRecorder.num_recordings == 1


def test_a_trial_after_one_that_diverged_or_was_stopped_starts_afresh(make_dataset: MakeDataset) -> None:
    data = make_dataset()
    workbench = Workbench(data, CPU, RepeatingRecorder)
    expected = _numbers(TrainingRun(CONFIG, data, CPU))
    diverged = TrainingRun(dataclasses.replace(CONFIG, lr=1e30), data, CPU, workbench)
    assert [result.status for result in diverged.epochs()] == ["diverged"]
    assert _numbers(TrainingRun(CONFIG, data, CPU, workbench)) == expected


def test_each_kind_of_step_is_recorded_once_and_the_oldest_are_dropped(make_dataset: MakeDataset) -> None:
    data = make_dataset(num_train=16)
    workbench = Workbench(data, CPU, RepeatingRecorder)
    configs = [dataclasses.replace(CONFIG, batch_size=size) for size in range(4, 5 + MAX_PROGRAMS)]
    first = workbench.program(configs[0])[0]
    for config in configs:
        workbench.program(config)
    assert RepeatingRecorder.num_recordings == len(configs)
    assert workbench.program(configs[0])[0] is not first
    assert workbench.program(configs[-1])[0] is workbench.program(dataclasses.replace(configs[-1], seed=3))[0]


def test_where_nothing_can_be_recorded_it_is_said_and_steps_run_plainly(make_dataset: MakeDataset) -> None:
    data = make_dataset()
    run = TrainingRun(CONFIG, data, CPU, Workbench(data, CPU, RefusingRecorder))
    assert run.notes == [
        "CUDA graphs are off, steps run one operation at a time and slower: "
        "CUDA error: operation not permitted when stream is capturing"
    ]
    assert _numbers(run) == _numbers(TrainingRun(CONFIG, data, CPU))


def test_the_learning_rate_is_set_only_when_it_changes(make_dataset: MakeDataset) -> None:
    """On a GPU it is a tensor, which a recorded step reads, and each setting is a kernel between two steps."""
    data = DeviceImages.from_split(make_dataset().train, CPU)
    program = TrainingProgram(CONFIG, data, num_classes=10, device=CPU, precision=Precision("fp32", ""))
    rate = torch.tensor(CONFIG.lr)
    program.optimizer.param_groups[0]["lr"] = rate
    for lr, num_settings in ((CONFIG.lr, 0), (CONFIG.lr, 0), (0.5, 1), (0.5, 1), (CONFIG.lr, 2)):
        program.set_learning_rate(lr)
        assert rate.item() == pytest.approx(lr)
        assert rate._version == num_settings


def test_a_workbench_fits_its_data_only(make_dataset: MakeDataset) -> None:
    data = make_dataset()
    workbench = Workbench(data, CPU)
    assert workbench.fits(data, CPU)
    assert not workbench.fits(dataclasses.replace(data, fingerprint="sha256:other"), CPU)
    assert not workbench.fits(data, torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_cuda_graphs_equal_plain_steps_and_keep_the_memory_they_have(make_dataset: MakeDataset) -> None:
    device = torch.device("cuda")
    prepare_device(device, cpu_threads=1)
    data = make_dataset(num_train=88)
    workbench = Workbench(data, device)
    for seed in range(20):
        config = dataclasses.replace(CONFIG, seed=seed, precision="fp32")
        recorded = TrainingRun(config, data, device, workbench)
        assert recorded.notes == []
        results = _numbers(recorded)
        if seed == 0:
            plain = TrainingRun(config, data, device, Workbench(data, device, RefusingRecorder))
            for result, expected in zip(results, _numbers(plain), strict=True):
                assert result.val_loss == pytest.approx(expected.val_loss, rel=1e-3)
        if seed == 1:
            torch.cuda.synchronize()
            allocated_bytes = torch.cuda.memory_allocated()
    assert torch.cuda.memory_allocated() <= allocated_bytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_capture_that_fails_leaves_the_stream_and_steps_that_run_plainly(make_dataset: MakeDataset) -> None:
    device = torch.device("cuda")
    prepare_device(device, cpu_threads=1)
    stream = torch.cuda.current_stream()

    class WaitingRecorder(CudaGraphRecorder):
        def record(self, step: Callable[[], None]) -> Callable[[], None]:
            def step_that_waits() -> None:
                step()
                torch.cuda.synchronize()  # which CUDA refuses in a capture

            return super().record(step_that_waits)

    data = make_dataset()
    run = TrainingRun(CONFIG, data, device, Workbench(data, device, WaitingRecorder))
    assert [note.partition(":")[0] for note in run.notes] == [
        "CUDA graphs are off, steps run one operation at a time and slower"
    ]
    assert torch.cuda.current_stream() == stream
    plain = TrainingRun(CONFIG, data, device, Workbench(data, device, RefusingRecorder))
    for result, expected in zip(_numbers(run), _numbers(plain), strict=True):
        assert result.val_loss == pytest.approx(expected.val_loss, rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_programs_that_are_dropped_give_back_their_memory(make_dataset: MakeDataset) -> None:
    device = torch.device("cuda")
    prepare_device(device, cpu_threads=1)
    data = make_dataset(num_train=88)
    workbench = Workbench(data, device)
    reserved_bytes = []
    for size in [8, 16, 24, 32] * 2 + [9, 17, 25, 33] + [8, 16, 24, 32]:
        for _ in TrainingRun(dataclasses.replace(CONFIG, batch_size=size), data, device, workbench).epochs():
            pass
        reserved_bytes.append(torch.cuda.memory_reserved())
    # A forgotten network or workspace of cuBLAS is over 30 MiB each time.
    assert reserved_bytes[-1] - max(reserved_bytes[4:8]) < 64 * 2**20
