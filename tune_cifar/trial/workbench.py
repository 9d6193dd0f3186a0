"""What trials that run one after another in a process share: the images on the device, initial weights and steps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tune_cifar.trial.batches import DeviceImages
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.host_copies import HostCopies
from tune_cifar.trial.model import build_model
from tune_cifar.trial.precision import choose_precision
from tune_cifar.trial.program import TrainingProgram
from tune_cifar.trial.recording import CudaGraphRecorder, StepRecorder, record_program

MAX_PROGRAMS = 4
"""The tutorial's sweep has four kinds of step (two models, two batch sizes); each keeps its memory on the device."""

# What a step does not read: it is set between steps, or before the first one.
_FREE_PARAMETERS = ("lr", "lr_schedule", "epochs", "seed")


class Workbench:
    """Images on `device`, and programs for them. Trials whose steps differ only in the learning rate share one."""

    def __init__(
        self,
        data: ImageDataset,
        device: torch.device,
        make_recorder: Callable[[torch.device], StepRecorder] | None = None,
    ) -> None:
        """`make_recorder` defaults to CUDA graphs on a GPU, and to none on the CPU, where launching costs nothing."""
        self.device = device
        self.num_classes = len(data.class_names)
        self.train_data = DeviceImages.from_split(data.train, device)
        self.validation_data = DeviceImages.from_split(data.validation, device)
        self.host_copies = HostCopies(device)
        self._of_data = (data.fingerprint, len(data.train))
        if make_recorder is None and device.type == "cuda":
            make_recorder = CudaGraphRecorder
        self._make_recorder = make_recorder
        self._initial: OrderedDict[tuple[str, str, int], Mapping[str, Tensor]] = OrderedDict()
        self._programs: OrderedDict[tuple[object, ...], tuple[TrainingProgram, str]] = OrderedDict()

    def fits(self, data: ImageDataset, device: torch.device) -> bool:
        """Whether this is a workbench for `data` on `device`."""
        return self._of_data == (data.fingerprint, len(data.train)) and self.device == device

    def program(self, config: TrialConfig) -> tuple[TrainingProgram, str]:
        """A program at the start of the trial `config`, and a fallback in words or an empty string."""
        step_parameters = {name: value for name, value in config.as_dict().items() if name not in _FREE_PARAMETERS}
        key = tuple(step_parameters.values())
        if key not in self._programs:
            while len(self._programs) >= MAX_PROGRAMS:
                self._programs.popitem(last=False)
            program = self._new_program(config)
            self._keep_initial(config, program)
            fallback = record_program(program, self._make_recorder(self.device)) if self._make_recorder else ""
            self._programs[key] = program, fallback
        self._programs.move_to_end(key)
        program, fallback = self._programs[key]
        begins_as = _weights_key(config)
        if begins_as not in self._initial:
            network = build_model(config.model, num_classes=self.num_classes, stem=config.stem, seed=config.seed)
            program.network.load_state_dict(network.state_dict())
            self._keep_initial(config, program)
        self._initial.move_to_end(begins_as)
        program.reset(self._initial[begins_as])
        return program, fallback

    def _keep_initial(self, config: TrialConfig, program: TrainingProgram) -> None:
        """Keep what `config` begins with, and all trials of a search, unless its seed varies.

        As copies of the program's own tensors, which are copied back in half the time that a state_dict takes to load.
        """
        self._initial[_weights_key(config)] = {
            name: tensor.detach().clone() for name, tensor in program.tensors().items()
        }
        while len(self._initial) > MAX_PROGRAMS:
            self._initial.popitem(last=False)

    def _new_program(self, config: TrialConfig) -> TrainingProgram:
        return TrainingProgram(
            config,
            self.train_data,
            num_classes=self.num_classes,
            device=self.device,
            precision=choose_precision(config.precision, self.device),
        )


def _weights_key(config: TrialConfig) -> tuple[str, str, int]:
    return config.model, config.stem, config.seed
