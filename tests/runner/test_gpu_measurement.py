from __future__ import annotations

import signal

import pytest
import torch

from tune_cifar.runner.gpu_measurement import MeasurementError, TrialProcesses
from tune_cifar.trial.config import TrialConfig

CPU = torch.device("cpu")
CONFIG = TrialConfig(batch_size=4, epochs=2, lr=1e-6)


def test_trials_train_at_once_and_report_their_throughput() -> None:
    with TrialProcesses(2, CPU) as processes:
        for number in (1, 2):
            measured = processes.measure([CONFIG], number, num_images=8)
            assert 0.01 < measured.images_per_second < 1e5
            assert (measured.reserved_bytes, measured.used_bytes, measured.total_bytes) == (0, 0, 0)  # of a GPU's
        with pytest.raises(MeasurementError, match="unknown model 'Perceptron'"):
            processes.measure([CONFIG, TrialConfig(model="Perceptron", epochs=2)], 2, num_images=8)
    assert all(process.exitcode == 0 for process in processes.processes)


def test_a_process_that_dies_is_not_waited_for(dying_processes: None) -> None:
    with TrialProcesses(2, CPU) as processes, pytest.raises(MeasurementError, match="died"):
        processes.measure([CONFIG], 2, num_images=8)


def test_an_interrupted_measurement_leaves_no_process() -> None:
    started = []

    def measure() -> None:
        with TrialProcesses(1, CPU) as processes:
            started.extend(processes.processes)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure()
    assert [process.exitcode for process in started] == [-signal.SIGKILL]
