"""Lets trials share a GPU: chooses how many where asked to, and has them compute side by side where it can."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tune_cifar.runner.gpu_measurement import MeasurementError, TrialProcesses
from tune_cifar.runner.heaviest_trials import heaviest_trials
from tune_cifar.runner.mps import CUDA_PROBE, MAX_CLIENTS, MpsStatus, mps_daemon, not_running
from tune_cifar.runner.ray_address import cluster_address
from tune_cifar.runner.resources import NodeResources
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.workbench import MAX_PROGRAMS

CANDIDATES = (1, 2, 4, 8)
"""How many trials a GPU are tried: more than 8 gain little, and each needs a CPU core to keep it busy."""

USABLE_MEMORY = 0.9
NEAR_BEST = 0.95
"""The smallest number of trials that trains this share of the most images a second is taken: each is done sooner."""

TIMED_STEPS = 200
MEMORY_STEPS = 4
CUDA = torch.device("cuda")


@dataclass(frozen=True)
class GpuRoom:
    """What limits the trials of one GPU: what a trial takes of its memory, in bytes, and the CPU cores for them.

    `free_bytes` is what other programs leave of `total_bytes`, which is 0 for a CPU: that one sets no limit.
    """

    trial_bytes: int
    free_bytes: int
    total_bytes: int
    cpu_cores: float

    def obstacle(self, num_trials: int) -> str | None:
        """Why `num_trials` cannot share the GPU, or None."""
        usable_bytes = self.free_bytes - (1 - USABLE_MEMORY) * self.total_bytes
        need_bytes = num_trials * self.trial_bytes
        if self.total_bytes and need_bytes > usable_bytes:
            need, usable = f"{need_bytes / 1e9:.1f} GB", f"{usable_bytes / 1e9:.1f} GB"
            return f"{num_trials} would need {need} of memory, of which {usable} can be used"
        if num_trials > self.cpu_cores:
            return f"{num_trials} would need a CPU core each, and there are {self.cpu_cores:g} for each GPU"
        return None


@dataclass(frozen=True)
class Choice:
    """How many trials share a GPU, and why, in words."""

    trials_a_gpu: int
    reason: str


def choose_trials_a_gpu(images_per_second: Mapping[int, float], room: GpuRoom) -> Choice:
    """The fewest trials that train nearly as many images a second, all together, as any number that fits.

    `images_per_second` has what 1 trial trains alone and what other numbers train together.
    """
    fitting = [number for number in sorted(images_per_second) if number == 1 or not room.obstacle(number)]
    best = max(images_per_second[number] for number in fitting)
    chosen = next(number for number in fitting if images_per_second[number] >= NEAR_BEST * best)
    gain = images_per_second[chosen] / images_per_second[1]
    if chosen > 1:
        reason = f"throughput {gain:.1f}x of one trial a GPU, memory {room.trial_bytes / 1e9:.1f} GB each"
    elif len(fitting) > 1:
        reason = f"more at once train no faster ({best / images_per_second[1]:.2f}x at best)"
    else:
        reason = ""
    if chosen == fitting[-1]:  # only then could more have been chosen
        obstacle = next((found for number in CANDIDATES if number > chosen and (found := room.obstacle(number))), None)
        reason = "; ".join(filter(None, [reason, obstacle]))
    return Choice(chosen, reason)


def measure_choice(
    config: SweepConfig, data: ImageDataset, constants: Mapping[str, Any], *, cpu_cores: float, device: torch.device
) -> Choice:
    """Train the sweep's largest network for some seconds, alone and several at once, and choose by that.

    The throughput is that of the smallest batch, which leaves a GPU the most idle. `constants` are parameters of
    every trial that the sweep need not name. `cpu_cores` are those for the trials of one GPU; of several GPUs the
    first is measured.
    """
    by_cores = [number for number in CANDIDATES if number <= max(1, cpu_cores)]
    if len(by_cores) == 1:
        return Choice(1, GpuRoom(0, 0, 0, cpu_cores).obstacle(CANDIDATES[1]) or "")
    hungry = list(itertools.islice(heaviest_trials(config, constants, batch="largest"), MAX_PROGRAMS))
    trial = next(heaviest_trials(config, constants, batch="smallest"))
    images_per_second: dict[int, float] = {}
    number = 1
    with TrialProcesses(by_cores[-1], device) as processes:
        try:
            room = _measure_room(processes, hungry, data, cpu_cores)
            for number in by_cores:
                if number > 1 and room.obstacle(number):
                    break
                measured = processes.measure([trial], number, num_images=TIMED_STEPS * trial.batch_size)
                images_per_second[number] = measured.images_per_second
        except MeasurementError as error:
            if not images_per_second:
                return Choice(1, f"the measurement failed: {error}")
            choice = choose_trials_a_gpu(images_per_second, room)
            return Choice(choice.trials_a_gpu, f"{choice.reason}; {number} at once failed: {error}")
    return choose_trials_a_gpu(images_per_second, room)


def _measure_room(
    processes: TrialProcesses, trials: Sequence[TrialConfig], data: ImageDataset, cpu_cores: float
) -> GpuRoom:
    """`trials` are the heaviest that one process has: it keeps the memory of so many, one trial after another."""
    num_images = MEMORY_STEPS * max(trial.batch_size for trial in trials)
    one, two = (processes.measure(trials, number, num_images=num_images) for number in (1, 2))
    # What a second process adds is more than torch reserves: CUDA itself needs memory for each.
    added_bytes = max(two.used_bytes - one.used_bytes, two.reserved_bytes)
    images_bytes = data.train.images.nbytes + data.validation.images.nbytes
    others_bytes = max(0, one.used_bytes - added_bytes)
    return GpuRoom(added_bytes + images_bytes, one.total_bytes - others_bytes, one.total_bytes, cpu_cores)


@dataclass(frozen=True)
class GpuSharing:
    """GPUs of each trial (None: as many as usual), and a line for the user where trials share one or could have."""

    gpus_per_trial: float | None
    line: str | None


@contextlib.contextmanager
def gpu_sharing(
    asked: float | Literal["auto"] | None,
    config: SweepConfig,
    data: ImageDataset,
    constants: Mapping[str, Any],
    *,
    machine: NodeResources,
    cpus_per_trial: float,
    say: Callable[[str], None],
    device: torch.device = CUDA,
    probe: Sequence[str] = CUDA_PROBE,
) -> Iterator[GpuSharing]:
    """Resolve `--gpus-per-trial`; the processes that are started in this context share GPUs as well as they can.

    `say` is told what takes time or goes wrong. `device` is what "auto" measures, `probe` tries out the MPS daemon.
    """
    if asked == "auto" and not machine.gpus:
        yield _auto_without_gpu()
    elif asked == "auto":
        with contextlib.ExitStack() as stack:
            mps = stack.enter_context(_side_by_side(CANDIDATES[-1], say, probe))
            say("measuring how many trials a GPU are fastest, which takes about a minute")
            cpu_cores = machine.cpus / machine.gpus / cpus_per_trial
            choice = measure_choice(config, data, constants, cpu_cores=cpu_cores, device=device)
            if choice.trials_a_gpu == 1:
                stack.close()
            yield _as_chosen(choice, mps)
    elif asked and asked <= 0.5 and (machine.gpus or cluster_address()):
        trials_a_gpu = math.floor(1 / asked + 1e-9)
        with _side_by_side(trials_a_gpu, say, probe) as mps:
            yield GpuSharing(asked, f"{trials_a_gpu} trials a GPU; {mps.line}")
    else:
        yield GpuSharing(asked, None)


def _as_chosen(choice: Choice, mps: MpsStatus) -> GpuSharing:
    if choice.trials_a_gpu == 1:
        return GpuSharing(1.0, f"one trial a GPU: {choice.reason}")
    return GpuSharing(1 / choice.trials_a_gpu, f"{choice.trials_a_gpu} trials a GPU: {choice.reason}; {mps.line}")


def _auto_without_gpu() -> GpuSharing:
    if cluster_address() is None:
        return GpuSharing(0.0, None)
    return GpuSharing(None, "auto measures on this machine, which has no GPU, so GPUs of the cluster are not shared")


@contextlib.contextmanager
def _side_by_side(trials_a_gpu: int, say: Callable[[str], None], probe: Sequence[str]) -> Iterator[MpsStatus]:
    if cluster_address() is not None:
        yield not_running("the trials run in a Ray that was started before this search")
    elif trials_a_gpu > MAX_CLIENTS:
        yield not_running(f"it serves {MAX_CLIENTS} programs a GPU, not {trials_a_gpu}")
    else:
        # This process scores the best model when the daemon has stopped, so it must not be a client of it, which
        # CUDA decides when it is first initialised (the manual page of nvidia-cuda-mps-control).
        if torch.cuda.is_available():
            torch.cuda.init()  # type: ignore[no-untyped-call]
        with mps_daemon(say=say, probe=probe) as status:
            yield status
