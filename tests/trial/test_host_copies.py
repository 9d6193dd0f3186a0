from __future__ import annotations

import torch

from tune_cifar.trial.host_copies import MAX_SPARE, HostCopies

CPU = torch.device("cpu")


def test_a_copy_has_the_values_in_the_default_layout_and_memory_of_its_own() -> None:
    weight = torch.nn.Parameter(torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last))
    steps = torch.tensor(7)
    copies = HostCopies(CPU).copy({"weight": weight, "steps": steps})
    with torch.no_grad():
        weight.zero_()
    steps.zero_()
    assert torch.equal(copies["weight"], torch.arange(24.0).view(1, 2, 3, 4))
    assert copies["weight"].is_contiguous()
    assert not copies["weight"].requires_grad
    assert copies["steps"].item() == 7


def test_what_is_given_back_serves_the_next_copy_and_what_is_not_is_left_alone() -> None:
    host_copies = HostCopies(CPU)
    first = host_copies.copy({"w": torch.zeros(3)})
    second = host_copies.copy({"w": torch.ones(3)})
    host_copies.give_back(first)
    third = host_copies.copy({"w": torch.full((3,), 2.0)})
    assert third["w"].data_ptr() == first["w"].data_ptr()
    assert torch.equal(second["w"], torch.ones(3))
    assert torch.equal(third["w"], torch.full((3,), 2.0))


def test_memory_of_another_model_is_not_used() -> None:
    host_copies = HostCopies(CPU)
    host_copies.give_back(host_copies.copy({"w": torch.zeros(3)}))
    for other in ({"w": torch.zeros(4)}, {"v": torch.zeros(3)}, {"w": torch.zeros(3, dtype=torch.int64)}, {}):
        copies = host_copies.copy(other)
        assert all(torch.equal(copies[name], tensor) for name, tensor in other.items())
        assert copies.keys() == other.keys()


def test_memory_of_a_few_models_is_kept() -> None:
    host_copies = HostCopies(CPU)
    copies = [host_copies.copy({str(model): torch.zeros(3)}) for model in range(MAX_SPARE + 1)]
    for copy in copies:
        host_copies.give_back(copy)
    again = [host_copies.copy({str(model): torch.zeros(3)}) for model in range(MAX_SPARE + 1)]
    kept = [one[str(place)].data_ptr() == copies[place][str(place)].data_ptr() for place, one in enumerate(again)]
    assert kept[1:] == [True] * MAX_SPARE
