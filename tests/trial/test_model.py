from __future__ import annotations

import pytest
import torch
import torchvision

from tune_cifar.trial.config import MODELS, torchvision_builder_name
from tune_cifar.trial.model import build_model


@pytest.mark.parametrize("name", ["ResNet18", "resnet18", "RESNET-18", "res_net18"])
def test_a_model_is_known_by_the_names_people_use(name: str) -> None:
    assert torchvision_builder_name(name) == "resnet18"


def test_all_of_torchvisions_resnets_are_known_and_nothing_else() -> None:
    assert sorted(MODELS) == sorted(set(torchvision.models.resnet.__all__) & set(torchvision.models.list_models()))
    assert torchvision_builder_name("vgg16") is None


def test_weights_are_torchvisions_and_follow_the_seed() -> None:
    first = build_model("ResNet18", num_classes=10, seed=1)
    torchvision.models.resnet18(num_classes=10).load_state_dict(first.state_dict())
    again = build_model("ResNet18", num_classes=10, seed=1)
    other = build_model("ResNet18", num_classes=10, seed=2)
    assert torch.equal(first.conv1.weight, again.conv1.weight)  # type: ignore[arg-type,union-attr]
    assert not torch.equal(first.conv1.weight, other.conv1.weight)  # type: ignore[arg-type,union-attr]


def test_building_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model("ResNet18", num_classes=10, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_the_cifar_stem_keeps_the_resolution() -> None:
    network = build_model("ResNet18", num_classes=7, stem="cifar", seed=0).eval()
    sizes = []
    network.layer1.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-2:]))  # type: ignore[union-attr]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sizes == [(32, 32)]
