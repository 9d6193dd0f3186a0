from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tune_cifar.trial.live_taps import (
    WholeMapConvolution,
    live_state,
    tap_table,
    use_live_taps,
    whole_map_convolutions,
    with_all_taps,
)
from tune_cifar.trial.model import build_model

TOLERANCE = 1e-10


def _pair(model: str, image_size: tuple[int, int], stem: str = "imagenet") -> tuple[nn.Module, nn.Module]:
    plain = build_model(model, num_classes=10, stem=stem, seed=0).double().to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    use_live_taps(fast, image_size)
    return plain, fast


def _images(image_size: tuple[int, int], num_images: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(num_images, 3, *image_size, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (num_images,), generator=generator)


def _full_gradient(layer: WholeMapConvolution) -> torch.Tensor:
    """The gradient in the layout of the plain layer, whose dead taps have none."""
    gradient = copy.deepcopy(layer)
    assert layer.live_weight.grad is not None
    with torch.no_grad():
        gradient.live_weight.copy_(layer.live_weight.grad)
        gradient.dead_weight.zero_()
    return gradient.full_weight()


@pytest.mark.parametrize("model", ["ResNet18", "ResNet34"])
def test_outputs_and_gradients_are_those_of_the_plain_network(model: str) -> None:
    plain, fast = _pair(model, (32, 32))
    images, labels = _images((32, 32))
    outputs = []
    for network in (plain, fast):
        outputs.append(network(images))
        nn.functional.cross_entropy(outputs[-1], labels).backward()
    assert (outputs[0] - outputs[1]).abs().max() < TOLERANCE
    num_live = 0
    for name, layer in plain.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        other = fast.get_submodule(name)
        assert layer.weight.grad is not None
        if isinstance(other, WholeMapConvolution):
            num_live += 1
            gradient = _full_gradient(other)
        else:
            gradient = other.weight.grad
        assert (layer.weight.grad - gradient).abs().max() < TOLERANCE, name
    assert num_live == {"ResNet18": 7, "ResNet34": 17}[model]


@pytest.mark.parametrize(
    ("model", "image_size", "stem"),
    [
        ("ResNet18", (32, 32), "imagenet"),
        ("ResNet34", (32, 32), "imagenet"),
        ("ResNet18", (8, 8), "imagenet"),
        ("ResNet18", (32, 48), "imagenet"),
        ("ResNet18", (8, 8), "cifar"),
    ],
)
@pytest.mark.parametrize("optimizer", [{}, {"weight_decay": 0.05, "nesterov": True}])
def test_five_steps_leave_the_weights_of_the_plain_network(
    model: str, image_size: tuple[int, int], stem: str, optimizer: dict[str, float]
) -> None:
    plain, fast = _pair(model, image_size, stem)
    assert list(whole_map_convolutions(fast))
    still = [layer.decay_dead_taps() for layer in whole_map_convolutions(fast)] if optimizer else []
    images, labels = _images(image_size)
    # A small rate: batch norm over a few one-pixel maps multiplies any difference at larger ones.
    optimizers = [
        torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, **optimizer) for network in (plain, fast)
    ]
    for _ in range(5):
        for network, sgd in zip((plain, fast), optimizers, strict=True):
            sgd.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            for weight in still if network is fast else []:
                weight.grad = torch.zeros_like(weight)
            sgd.step()
    expected, weights = plain.state_dict(), fast.state_dict()
    assert list(weights) == list(expected)
    for name, tensor in expected.items():
        assert weights[name].shape == tensor.shape
        assert (weights[name] - tensor).abs().max() < TOLERANCE, name


def test_the_layers_follow_from_the_size_of_the_maps() -> None:
    def replaced(image_size: tuple[int, int], stem: str = "imagenet") -> list[str]:
        return use_live_taps(build_model("ResNet18", num_classes=10, stem=stem, seed=0), image_size)

    layer4 = ["layer4.0.conv1", "layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2"]
    assert replaced((32, 32)) == ["layer3.0.conv2", "layer3.1.conv1", "layer3.1.conv2", *layer4]
    assert replaced((32, 32), "cifar") == []
    assert replaced((64, 64)) == layer4[1:]
    assert replaced((224, 224)) == []


def test_dead_taps_keep_their_initial_values() -> None:
    plain, fast = _pair("ResNet18", (32, 32))
    images, labels = _images((32, 32))
    sgd = torch.optim.SGD(fast.parameters(), lr=0.1)
    nn.functional.cross_entropy(fast(images), labels).backward()
    sgd.step()
    before, after = plain.state_dict()["layer4.1.conv2.weight"], fast.state_dict()["layer4.1.conv2.weight"]
    is_centre = torch.zeros(3, 3, dtype=torch.bool)
    is_centre[1, 1] = True
    assert torch.equal(after[..., ~is_centre], before[..., ~is_centre])
    assert not torch.equal(after[..., is_centre], before[..., is_centre])


def test_weights_come_back_from_torchvisions_layout() -> None:
    plain, fast = _pair("ResNet18", (32, 32))
    other = build_model("ResNet18", num_classes=10, seed=7).double()
    fast.load_state_dict(other.state_dict())
    for name, tensor in other.state_dict().items():
        assert torch.equal(fast.state_dict()[name], tensor), name
    state = plain.state_dict()
    del state["layer4.1.conv2.weight"]
    state["layer4.1.conv1.weight"] = torch.zeros(3, 3, 3, 3)
    with pytest.raises(RuntimeError, match=r"(?s)layer4\.1\.conv2\.weight.*layer4\.1\.conv1\.weight has shape"):
        fast.load_state_dict(state)


def test_the_table_of_taps() -> None:
    kernel3 = nn.Conv2d(1, 1, 3, padding=1)
    assert tap_table(kernel3, 1, 1).tolist() == [[4]]
    assert tap_table(kernel3, 1, 2).tolist() == [[4, 5], [3, 4]]
    assert tap_table(nn.Conv2d(1, 1, 3, stride=2, padding=1), 2, 2).tolist() == [[4, 5, 7, 8]]
    assert tap_table(nn.Conv2d(1, 1, 2, stride=2), 2, 3).tolist() == [[0, 1, -1, 2, 3, -1]]
    assert tap_table(nn.Conv2d(1, 1, 3, padding=2, dilation=2), 1, 3).tolist() == [[4, -1, 5], [-1, 4, -1], [3, -1, 4]]


def test_a_forward_pass_of_the_trace_leaves_batch_norm_as_it_was() -> None:
    network = build_model("ResNet18", num_classes=10, seed=0)
    use_live_taps(network, (32, 32))
    assert network.training
    assert int(network.state_dict()["bn1.num_batches_tracked"]) == 0


def test_bf16_products_are_near_those_of_the_plain_network() -> None:
    plain, fast = (network.float() for network in _pair("ResNet18", (32, 32)))
    images = _images((32, 32))[0].float()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        scores = [network.eval()(images).float() for network in (plain, fast)]
    assert (scores[0] - scores[1]).abs().max() < 0.02 * scores[0].abs().max()


@pytest.mark.parametrize("decay", [False, True])
def test_what_training_changes_and_the_initial_weights_are_the_whole_network(decay: bool) -> None:
    initial, network = _pair("ResNet18", (32, 32))
    if decay:
        for layer in whole_map_convolutions(network):
            layer.decay_dead_taps()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.rand_like(weight))
    state = live_state(network)
    whole = with_all_taps(state, initial.state_dict())
    assert list(whole) == list(initial.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(whole[name], tensor), name

    kept = sum(state[name].numel() for name in whole)
    assert kept == sum(tensor.numel() for tensor in whole.values()) if decay else kept < 5e6

    _, other = _pair("ResNet18", (32, 32))
    other.load_state_dict(state)
    for name, tensor in other.state_dict().items():
        assert torch.equal(whole[name], tensor), name


def test_the_taps_of_other_images_are_refused() -> None:
    _, network = _pair("ResNet18", (32, 32))
    _, of_wide_images = _pair("ResNet18", (32, 48))
    with pytest.raises(RuntimeError, match="has shape"):
        network.load_state_dict(live_state(of_wide_images), strict=False)


class _KernelCounter(TorchDispatchMode):
    """Counts operations that would be a kernel each on a GPU: all that return memory of their own, or write to some."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not operation.is_view and operation is not torch.ops.aten._unsafe_view.default:
            self.names.append(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))


def test_a_convolution_of_several_output_pixels_is_few_kernels() -> None:
    layer = WholeMapConvolution(nn.Conv2d(8, 4, 3, padding=1, bias=False), 2, 2)
    images = torch.randn(5, 8, 2, 2).to(memory_format=torch.channels_last)
    with _KernelCounter() as forward, torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        output = layer(images)
    assert forward.names == ["_to_copy", "_to_copy", "index_select", "mm"]
    gradient = torch.ones_like(output)
    with _KernelCounter() as backward:
        output.backward(gradient)
    assert backward.names.count("_to_copy") == 1
    assert backward.names.count("index_add_") == 4
