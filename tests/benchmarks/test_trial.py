from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import trial
from benchmarks.loop_processes import LoopProcess
from benchmarks.our_loop import OurLoop
from benchmarks.successive_trials import MOST_GROWTH_MIB, grows, growth_mib
from benchmarks.time_shares import CATEGORIES, CPU_OPERATIONS, GPU_KERNELS, category_of
from benchmarks.trial_timing import Crew, Measurement, plan_ours, time_in_turn
from benchmarks.tutorial_loop import TutorialLoop
from tune_cifar.errors import UserError
from tune_cifar.runner.gpu_measurement import noise_images
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.device import prepare_device
from tune_cifar.versions import installed_versions

REPOSITORY = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")
CONFIG = TrialConfig(model="resnet18", batch_size=16)

NOT_NEEDED = ("ray", "wandb", "optuna", "pydantic", "sklearn", "yaml", "pyarrow", "rich", "filelock")

# Every Python that finds it on its path runs a module of this name first, the benchmark's own processes too.
HIDE_PACKAGES = f"import sys; sys.modules.update(dict.fromkeys({NOT_NEEDED!r}))"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a tiny run of the command, from a folder that is not the checkout and with few packages."""
    folder = tmp_path_factory.mktemp("trial")
    (folder / "sitecustomize.py").write_text(HIDE_PACKAGES)
    path = folder / "new" / "result.json"
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "trial.py"), "--device=cpu", f"--json={path}"]
    few = ["--images=64", "--repeats=2", "--models", "resnet18", "--batch-sizes", "32", "--successive-trials=2"]
    # On a busy machine, threads that wait for each other without letting others go first need minutes.
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        # Else each of the benchmark's six processes would compile all of torch again.
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    done = subprocess.run([*command, *few], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resnet18/32" in done.stdout
    return dict(json.loads(path.read_text()), stdout=done.stdout)


def test_both_loops_are_measured_on_the_same_images(result: dict[str, Any]) -> None:
    (case,) = result["cases"]
    cores = result["machine"]["cores"]
    assert {each["images_each"] for each in case["measurements"]} == {64}
    measured = [(each["loop"], each["processes"], each["cpu_threads"]) for each in case["measurements"]]
    several = [("ours", 1, cores), ("ours", cores, 1)] if cores > 1 else []
    assert measured == [("tutorial", 1, 1), ("ours", 1, 1), *several]
    assert case["headline"] == case["measurements"][-1]
    for each in case["measurements"]:
        assert len(each["seconds"]) == 2
        assert each["num_images"] == 64 * each["processes"]
        fastest = each["num_images"] / min(each["seconds"])
        assert each["images_per_second"]["max"] == pytest.approx(fastest)
        assert each["seconds_per_45000_images"]["min"] == pytest.approx(45_000 / fastest)
    tutorial, ours = case["measurements"][:2]
    ratios = [theirs / own for theirs, own in zip(tutorial["seconds"], ours["seconds"], strict=True)]
    assert [ours["ratio"]["min"], ours["ratio"]["max"]] == pytest.approx(sorted(ratios))


def test_the_tutorials_loader_starts_its_workers_as_it_does_in_a_program(result: dict[str, Any]) -> None:
    ran_with = result["cases"][0]["time_shares"]["tutorial"]["ran_with"]
    assert ran_with["loader_start_method"] == multiprocessing.get_start_method()
    assert ran_with["loader_workers"] == 2


def test_shares_of_time_are_of_known_operations(result: dict[str, Any]) -> None:
    for profiled in result["cases"][0]["time_shares"].values():
        shares = profiled["shares"]
        assert list(shares) == list(CATEGORIES)
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["convolution backward"] > 0.05
        assert shares["other"] < 0.1
        assert profiled["graph_launches"] == 0


def test_the_result_says_what_it_was_measured_on(result: dict[str, Any]) -> None:
    assert result["machine"]["versions"].items() >= installed_versions().items()
    assert result["machine"]["cpu"]
    assert "--repeats=2" in result["command"]
    assert len(result["memory_after_trials"]["mib"]) == 2
    assert result["memory_after_trials"]["grows"] is None
    assert "too few trials to tell" in result["stdout"]


def test_noise_is_said_to_be_noise(result: dict[str, Any]) -> None:
    assert "64 images an epoch, of noise" in result["stdout"]
    assert result["images"]["source"] == "noise"


@pytest.mark.parametrize(
    ("hidden", "flags", "message"),
    [
        ("torchvision", [], "error: torchvision is missing. This needs: pip install torch torchvision"),
        ("PIL", [], "error: PIL is missing."),
        ("sklearn", ["--device=cpu", "--data=digits"], "error: --data digits: reading it needs sklearn"),
        ("ray", ["--device=cpu", "--data=no-such-folder"], "error: data: 'no-such-folder' is neither"),
    ],
)
def test_what_is_missing_is_told_in_one_message(tmp_path: Path, hidden: str, flags: list[str], message: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{hidden!r}] = None")
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "trial.py"), *flags]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match="--device cuda: torch finds no GPU"):
        trial.main(["--device", "cuda"])


class CountTrainedImages(TorchDispatchMode):
    """Counts the images whose loss is differentiated, in whatever way a loop is written."""

    num_images = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.nll_loss_backward.default:
            self.num_images += len(args[1])
        return func(*args, **(kwargs or {}))


# Python 3.12 warns when a process with threads forks, as the tutorial's loader does.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("make_loop", [TutorialLoop, OurLoop])
def test_an_epoch_trains_on_every_image(make_loop: type[TutorialLoop] | type[OurLoop]) -> None:
    prepare_device(CPU, cpu_threads=1)
    loop = make_loop(CONFIG, noise_images(40).train, CPU)
    with CountTrainedImages() as counted:
        loop.train()
    assert counted.num_images == 40


def test_a_failure_in_a_process_is_shown_and_ends_it(tmp_path: Path) -> None:
    with (
        LoopProcess("ours", tmp_path, CPU) as process,
        pytest.raises(RuntimeError, match=r"FileNotFoundError.*images\.npy"),
    ):
        process.call("open", CONFIG, 40)
    assert not multiprocessing.active_children()


def test_turns_end_when_time_is_up_but_not_before_the_first() -> None:
    nothing = [Measurement("tutorial", [], 40), Measurement("ours", [], 40)]
    said: list[str] = []
    late = time_in_turn(nothing, repeats=5, deadline=perf_counter() - 1, say=said.append)
    assert [len(times) for times in late] == [1, 1]
    assert said == ["  1 of 5 repeats, to end in time"]
    in_time = time_in_turn(nothing, repeats=5, deadline=perf_counter() + 60, say=said.append)
    assert [len(times) for times in in_time] == [5, 5]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("device_type", "num_processes", "counts"),
    [("cpu", 1, []), ("cpu", 6, [6]), ("cuda", 8, [1, 2, 4, 8]), ("cuda", 6, [1, 2, 4])],
)
def test_how_many_trials_are_tried_at_once(device_type: str, num_processes: int, counts: list[int]) -> None:
    process: Any = None
    crew = Crew(process, process, None, [process] * num_processes, [], device_type)
    assert crew.counts_together() == counts


def test_trials_that_share_a_gpu_do_the_same_work_together_as_one_alone() -> None:
    process: Any = None
    crew = Crew(process, process, None, [process] * 8, [process] * 8, "cuda")
    planned = plan_ours(crew, 45_000, batch_size=128)
    together = [(1, 8), (2, 4), (4, 2), (8, 1)]
    assert [(len(each.processes), each.num_epochs) for each in planned] == [(1, 1), *together, *together]
    assert [each.mps for each in planned] == [False] * 5 + [True] * 4
    assert {each.num_images for each in planned} == {45_000}


@pytest.mark.parametrize(
    ("kernel", "category"),
    [
        ("sm80_xmma_wgrad_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc", "convolution backward"),
        ("cutlass_tensorop_s1688dgrad_optimized_tf32_128x128_16x4", "convolution backward"),
        ("sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "convolution forward"),
        ("void cudnn::ops::convertTensor_kernel<float, float>", "elementwise and pooling"),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, 512>", "batch norm"),
        ("nvjet_tst_128x64_64x8_2x1_v_bz_TNT", "matrix products"),
        ("void at::native::multi_tensor_apply_kernel<FusedSgdMathFunctor>", "optimizer"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::AddFunctor>", "elementwise and pooling"),
        ("Memcpy HtoD (Pageable -> Device)", "data loading"),
        ("void at::native::indexSelectLargeIndex<unsigned char, long>", "data loading"),
        ("void something_new()", "other"),
    ],
)
def test_kernels_are_counted_by_what_they_compute(kernel: str, category: str) -> None:
    assert category_of(kernel, GPU_KERNELS) == category


@pytest.mark.parametrize(
    ("operation", "category"),
    [
        ("autograd::engine::evaluate_function: ConvolutionBackward0", "convolution backward"),
        ("aten::conv2d", "convolution forward"),
        ("Optimizer.step#SGD.step", "optimizer"),
        ("enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__", "data loading"),
        ("aten::add_", "elementwise and pooling"),
    ],
)
def test_operations_are_counted_by_what_they_are_for(operation: str, category: str) -> None:
    assert category_of(operation, CPU_OPERATIONS) == category


def test_memory_grows_if_the_last_trial_needs_more_than_the_first_half() -> None:
    kept = [{"in_use": 900.0 + MOST_GROWTH_MIB / 8 * trial} for trial in range(20)]
    assert grows(kept) is True
    settled = [{"in_use": mib} for mib in (900.0, 990.0, 1000.0, 1001.0, 1001.0, 1000.0, 1000.0, 999.0, 1001.0, 1003.0)]
    assert growth_mib(settled) == 2
    assert grows(settled) is False
    assert grows(kept[:5]) is None
