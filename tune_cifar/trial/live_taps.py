"""Computes convolutions on maps of a few pixels as matrix products, because most of their taps only meet padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

TAPS_SUFFIX = ".taps"
"""In `live_state` the tensor `NAME.taps` says which taps of the kernel `NAME` has, in the order of its second axis."""


def use_live_taps(network: nn.Module, image_size: tuple[int, int]) -> list[str]:
    """Replace, in place, each convolution of `network` that is a smaller matrix product on images of `image_size`.

    ResNet's 7x7 stem leaves 32x32 images 2x2 pixels in layer3 and one in layer4, where a 3x3 kernel reaches past
    every border. A tap that meets only padding adds exactly nothing and has a gradient of exactly 0, so
    the outputs and all updates stay as they were but for rounding. `state_dict` keeps torchvision's names and
    shapes, with the other taps as they were initialised. Returns the names of the replaced layers.
    """
    replaced = []
    for name, (convolution, height, width) in _trace_convolutions(network, image_size).items():
        if _is_smaller_as_product(convolution, height, width):
            parent_name, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent_name), leaf, WholeMapConvolution(convolution, height, width))
            replaced.append(name)
    return replaced


def _trace_convolutions(network: nn.Module, image_size: tuple[int, int]) -> Mapping[str, tuple[nn.Conv2d, int, int]]:
    """Each convolution with the height and width of its input, seen in one forward pass of a blank image."""
    seen: dict[str, tuple[nn.Conv2d, int, int]] = {}

    def remember(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(module, nn.Conv2d)  # noqa: S101
            seen[name] = (module, inputs[0].shape[2], inputs[0].shape[3])

        return hook

    convolutions = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_pre_hook(remember(name)) for name, module in convolutions]
    was_training = network.training
    network.eval()  # batch norm must neither learn from the blank image nor refuse it
    first = next(network.parameters())
    with torch.no_grad():
        network(torch.zeros(1, 3, *image_size, dtype=first.dtype, device=first.device))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return seen


def tap_table(convolution: nn.Conv2d, height: int, width: int) -> Tensor:
    """Which tap (row of the kernel times its width, plus column) joins each output pixel with each input pixel.

    int64 [output pixels, input pixels], -1 where no tap does; for an input of `height` x `width` pixels.
    """
    rows, columns = _axis_taps(convolution, 0, height), _axis_taps(convolution, 1, width)
    joined = rows[:, None, :, None] * convolution.kernel_size[1] + columns[None, :, None, :]
    meets = (rows >= 0)[:, None, :, None] & (columns >= 0)[None, :, None, :]
    return torch.where(meets, joined, -1).flatten(2).flatten(0, 1)


def _axis_taps(convolution: nn.Conv2d, axis: int, size: int) -> Tensor:
    """The table for one axis: int64 [output positions, input positions]."""
    kernel, stride = convolution.kernel_size[axis], convolution.stride[axis]
    padding, dilation = int(convolution.padding[axis]), convolution.dilation[axis]
    num_outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    distance = torch.arange(size) - stride * torch.arange(num_outputs)[:, None] + padding
    tap = distance // dilation
    return torch.where((distance % dilation == 0) & (tap >= 0) & (tap < kernel), tap, -1)


def _is_smaller_as_product(convolution: nn.Conv2d, height: int, width: int) -> bool:
    """Whether the input has fewer pixels than the kernel has taps, and every pair of pixels has one of them."""
    plain = convolution.groups == 1 and convolution.bias is None and convolution.padding_mode == "zeros"
    num_taps = convolution.kernel_size[0] * convolution.kernel_size[1]
    return plain and height * width < num_taps and bool((tap_table(convolution, height, width) >= 0).all())


class WholeMapConvolution(nn.Module):
    """A convolution as one product of the whole input map with a matrix of the taps that meet it.

    `live_weight` is [out channels, live taps, in channels]; `dead_weight`, the same for the other taps, takes no part.
    """

    def __init__(self, convolution: nn.Conv2d, height: int, width: int) -> None:
        super().__init__()
        self.full_shape = tuple(convolution.weight.shape)
        out_channels, _in_channels, *self.kernel_size = self.full_shape
        taps = tap_table(convolution, height, width)
        is_live = torch.zeros(self.kernel_size[0] * self.kernel_size[1], dtype=torch.bool)
        is_live[taps] = True
        self.live, self.dead = is_live.nonzero().flatten(), is_live.logical_not().nonzero().flatten()
        by_tap = _by_tap(convolution.weight.detach())
        self.live_weight = nn.Parameter(by_tap[:, self.live].clone())
        self.dead_weight: Tensor
        self.register_buffer("dead_weight", by_tap[:, self.dead].clone())
        # For each output pixel, the place among the live taps of the one that joins it with each input pixel.
        self.live_taps: Tensor
        live_taps = torch.searchsorted(self.live, taps)
        self.register_buffer("live_taps", live_taps, persistent=False)
        # The rows of `live_weight`, as [out channels x live taps, in channels], that the product's matrix consists of.
        by_output = torch.arange(out_channels)[:, None] * len(self.live) + live_taps[:, None, :]
        self.matrix_rows: Tensor
        self.register_buffer("matrix_rows", by_output.flatten(), persistent=False)
        self.output_size = (len(_axis_taps(convolution, 0, height)), len(_axis_taps(convolution, 1, width)))
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> Tensor:
        """[n, in channels, height, width] to [n, out channels, output height, output width]."""
        pixels = images.permute(0, 2, 3, 1).reshape(len(images), -1)
        if len(self.live_taps) == 1:
            output = linear(pixels, self.live_weight.flatten(1))
        else:
            device_type = images.device.type
            if torch.is_autocast_enabled(device_type):
                pixels = pixels.to(torch.get_autocast_dtype(device_type))
            output = _WholeMapProduct.apply(pixels, self.live_weight, self.live_taps, self.matrix_rows)
        return output.view(len(images), *self.output_size, self.out_channels).permute(0, 3, 1, 2)

    def decay_dead_taps(self) -> nn.Parameter:
        """Make the dead taps a parameter, for an optimizer that shrinks weights also where the gradient is 0."""
        dead_weight = nn.Parameter(self.dead_weight)
        del self.dead_weight
        self.register_parameter("dead_weight", dead_weight)
        return dead_weight

    def full_weight(self) -> Tensor:
        """The weight as torchvision has it: [out channels, in channels, kernel height, kernel width]."""
        live, dead = self.live_weight.detach(), self.dead_weight.detach()
        by_tap = live.new_empty(live.shape[0], live.shape[1] + dead.shape[1], live.shape[2])
        by_tap[:, self.live] = live
        by_tap[:, self.dead] = dead
        return _by_row_and_column(by_tap, self.kernel_size)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.full_weight()

    def save_live_taps(self, destination: dict[str, Tensor], prefix: str) -> None:
        """Put what training changes into `destination`: the live taps alone, unless the others decay."""
        name = f"{prefix}weight"
        if isinstance(self.dead_weight, nn.Parameter):
            destination[name] = self.full_weight()
        else:
            destination[name], destination[name + TAPS_SUFFIX] = self.live_weight.detach(), self.live

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        _local_metadata, strict, missing_keys, _unexpected_keys, error_messages = args
        name = f"{prefix}weight"
        if name not in state_dict:
            if strict:
                missing_keys.append(name)
            return
        weight, taps = state_dict[name], state_dict.get(name + TAPS_SUFFIX)
        if taps is not None and torch.equal(taps, self.live) and weight.shape == self.live_weight.shape:
            with torch.no_grad():
                self.live_weight.copy_(weight)
            return
        if tuple(weight.shape) != self.full_shape:
            error_messages.append(f"{name} has shape {tuple(weight.shape)}, not {self.full_shape}")
            return
        by_tap = _by_tap(weight)
        with torch.no_grad():
            self.live_weight.copy_(by_tap[:, self.live])
            self.dead_weight.copy_(by_tap[:, self.dead])


def live_state(network: nn.Module) -> dict[str, Tensor]:
    """The `state_dict` of `network` without the taps that keep their initial values, which `load_state_dict` leaves."""
    state: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, WholeMapConvolution):
            module.save_live_taps(state, prefix)
        else:
            module._save_to_state_dict(state, prefix, keep_vars=False)
    return state


def with_all_taps(state: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `live_state`'s `state` in torchvision's layout, with the `initial` values of the taps that it lacks."""
    full = {}
    for name, tensor in state.items():
        if name.endswith(TAPS_SUFFIX):
            continue
        taps = state.get(name + TAPS_SUFFIX)
        if taps is not None:
            by_tap = _by_tap(initial[name]).index_copy(1, taps, tensor)
            tensor = _by_row_and_column(by_tap, initial[name].shape[2:])
        full[name] = tensor
    return full


def _by_tap(weight: Tensor) -> Tensor:
    """[out channels, in channels, kernel height, kernel width] as [out channels, taps, in channels]."""
    return weight.permute(0, 2, 3, 1).flatten(1, 2)


def _by_row_and_column(by_tap: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """What `_by_tap` was given."""
    return by_tap.view(len(by_tap), *kernel_size, -1).permute(0, 3, 1, 2)


def whole_map_convolutions(network: nn.Module) -> Iterator[WholeMapConvolution]:
    """The layers that `use_live_taps` replaced."""
    return (module for module in network.modules() if isinstance(module, WholeMapConvolution))


class _WholeMapProduct(torch.autograd.Function):
    """pixels [n, input pixels x channels] by a matrix whose blocks are taps; a tap's gradient sums over its blocks.

    Few operations, because on a GPU each is a kernel of its own that takes longer to begin than to copy so little.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, taps: Tensor, matrix_rows: Tensor) -> Tensor:
        by_row = weight.to(pixels.dtype).flatten(0, 1)
        matrix = by_row.index_select(0, matrix_rows).view(-1, pixels.shape[1])
        ctx.save_for_backward(pixels, matrix, taps)
        ctx.weight_shape, ctx.weight_dtype = weight.shape, weight.dtype
        return pixels @ matrix.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        pixels, matrix, taps = ctx.saved_tensors
        blocks = (gradient.t() @ pixels).view(len(taps), *ctx.weight_shape[:1], taps.shape[1], ctx.weight_shape[2])
        of_weight = gradient.new_zeros(ctx.weight_shape, dtype=ctx.weight_dtype)
        # One output pixel at a time: it meets no tap twice, so that sums come out the same each time on a GPU too.
        for row, block in zip(taps, blocks.to(ctx.weight_dtype), strict=True):
            of_weight.index_add_(1, row, block)
        return gradient @ matrix, of_weight, None, None
