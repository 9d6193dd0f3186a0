"""One training step on tensors that stay in place, so that it can be recorded once as a CUDA graph and played back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tune_cifar.trial.batches import CropAndFlip, DeviceImages, normalise, num_used_images
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.live_taps import use_live_taps, whole_map_convolutions
from tune_cifar.trial.model import build_model
from tune_cifar.trial.precision import Precision


class TrainingProgram:
    """The network, its optimizer and one training step, which takes its images by itself from an order on the device.

    Everything that a step reads or writes keeps its address from trial to trial: `reset` and
    `load_momentum` copy into it. `loss_sum` adds up the mean losses of the steps until `read_loss_sum`.
    """

    def __init__(
        self, config: TrialConfig, data: DeviceImages, *, num_classes: int, device: torch.device, precision: Precision
    ) -> None:
        self.config, self.data, self.precision, self.device = config, data, precision, device
        height, width = data.images.shape[1:3]
        network = build_model(config.model, num_classes=num_classes, stem=config.stem, seed=config.seed)
        use_live_taps(network, (height, width))
        self.network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Weights that only decay, each with the gradient it always has.
        self.still_weights: list[tuple[nn.Parameter, Tensor]] = []
        if config.weight_decay:
            dead_weights = [layer.decay_dead_taps() for layer in whole_map_convolutions(self.network)]
            self.still_weights = [(weight, torch.zeros_like(weight)) for weight in dead_weights]
        self.optimizer = self._make_optimizer()
        self.loss_function = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        num_images = num_used_images(len(data), config.batch_size)
        self.order = torch.zeros(num_images, dtype=torch.int64, device=device)
        self.position = torch.zeros((), dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), device=device)
        self._offsets = torch.arange(min(config.batch_size, num_images), device=device)
        self._change = CropAndFlip.empty(len(data), device) if config.augment == "flip_crop" else None
        self._replays: dict[int, Callable[[], None]] = {}
        self._learning_rate = config.lr

    def _make_optimizer(self) -> torch.optim.SGD:
        config = self.config
        optimizer = torch.optim.SGD(
            self.network.parameters(),
            # A number would be recorded in a CUDA graph as it is at that moment; a tensor is read at each replay.
            lr=torch.tensor(config.lr, device=self.device) if self.device.type == "cuda" else config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=True,
        )
        if config.momentum:
            # torch makes them at the first step, from the gradient; from zeros that step comes out the same.
            for weight in self.network.parameters():
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return optimizer

    def tensors(self) -> dict[str, Tensor]:
        """All that the network consists of, as it is laid out for training and not as it is saved."""
        return {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}

    def reset(self, initial: Mapping[str, Tensor]) -> None:
        """Begin another trial from `initial`, which `tensors` gave.

        It may differ in what no step reads: schedule, epochs and seed.
        """
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(initial[name])
        for buffer in self.momentum():
            buffer.zero_()
        self.read_loss_sum()

    def start_epoch(self, order: Tensor, change: CropAndFlip | None) -> None:
        """Take `order` (int64 [images], on the CPU) and the augmentation for the steps to come."""
        self.order.copy_(order[: len(self.order)])
        self.position.zero_()
        if self._change is not None and change is not None:
            self._change.copy_(change)

    def set_learning_rate(self, lr: float) -> None:
        """The rate of the steps to come."""
        if lr == self._learning_rate:
            return  # on a GPU, setting it is a kernel before each step
        self._learning_rate = lr
        group = self.optimizer.param_groups[0]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr

    def step(self, num_images: int) -> None:
        """Train on the next `num_images` of the order."""
        replay = self._replays.get(num_images)
        if replay is None:
            self.plain_step(num_images)
        else:
            replay()

    def record(self, replays: Mapping[int, Callable[[], None]]) -> None:
        """Use these for steps of so many images, instead of `plain_step`."""
        self._replays = dict(replays)

    def plain_step(self, num_images: int) -> None:
        """The step itself, operation by operation; waits for nothing."""
        rows = self.order.index_select(0, self.position + self._offsets[:num_images])
        images = self.data.images.index_select(0, rows)
        if self._change is not None:
            images = self._change.apply(images, rows)
        labels = self.data.labels.index_select(0, rows)
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.autocast(self.device):
            scores = self.network(normalise(images))
        loss = self.loss_function(scores.float() if scores.dtype == torch.bfloat16 else scores, labels)
        loss.backward()
        for weight, zeros in self.still_weights:
            weight.grad = zeros
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.position += num_images

    def read_loss_sum(self) -> float:
        """The sum of the steps' losses since the last call; waits for the device."""
        total: float = self.loss_sum.item()
        self.loss_sum.zero_()
        return total

    def momentum(self) -> list[Tensor]:
        """The optimizer's momentum for each parameter, none where it has no momentum."""
        state = self.optimizer.state
        return [state[weight]["momentum_buffer"] for weight in self.network.parameters() if weight in state]

    def load_momentum(self, buffers: Sequence[Tensor]) -> None:
        """Copy `buffers` into the optimizer's."""
        for own, other in zip(self.momentum(), buffers, strict=True):
            own.copy_(other)
