from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tune_cifar.trial.device import prepare_device


@pytest.fixture
def _flags() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    yield
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before


@pytest.mark.usefixtures("_flags")
def test_a_gpu_repeats_its_numbers_and_computes_fp32_as_fp32() -> None:
    """The flags can be set and read without a GPU; by torch's default convolutions are in TF32."""
    assert torch.backends.cudnn.allow_tf32
    prepare_device(torch.device("cuda"), cpu_threads=1)
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
