from __future__ import annotations

import pytest

from benchmarks.long_search import Look, measure, print_table, summarise


def test_growth_and_the_cost_of_a_trial_are_read_from_the_looks() -> None:
    # 2 trials a second from second 10 on, each with 0.1 s of the driver's time; the driver grows by 0.5 MiB a trial,
    # the worker only at the start.
    looks = [
        Look(10 + trials / 2, trials, 3 + trials / 10, 500 + trials / 2, min(400, 300 + 20 * trials))
        for trials in range(41)
    ]
    summary = summarise(looks)
    assert summary["trials"] == 40
    assert summary["driver_peak_mib"] == 520
    assert summary["driver_mib_per_trial"] == pytest.approx(0.5)
    assert summary["worker_mib_per_trial"] == pytest.approx(0)
    assert summary["milliseconds_per_trial"] == pytest.approx([500] * 10)
    assert summary["driver_cpu_milliseconds_per_trial"] == pytest.approx([100] * 10)


def test_a_search_of_ten_stub_trials_is_measured_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    figures = measure("stub", "random", 10)
    assert figures["trials"] == 10
    assert 100 < figures["driver_peak_mib"] < 1500
    assert figures["worker_peak_mib"] > 100
    print_table([figures])
    assert "| stub, random | 10 | " in capsys.readouterr().out
