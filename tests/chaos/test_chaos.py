"""The short form of the chaos test: one search, hit by four faults; `make chaos` plays many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.campaign import Plan, Played, Scenario, load, num_faults, play, save, table

# Four starts of a search take a minute, or many on a machine with other work.
pytestmark = pytest.mark.timeout(3600)

SCENARIO = Scenario("grid, 2 at once, W&B online", "grid", 2, (), wandb="online")
PLAN: Plan = (
    ("W&B down", "start"),
    ("kill trial", "epoch"),
    ("kill search", "snapshot"),
    ("SIGTERM", "epoch"),
)


@pytest.fixture(scope="module")
def played() -> Played:
    return play(SCENARIO, PLAN, seed=1)


def test_a_search_keeps_its_promises_whatever_hits_it(played: Played) -> None:
    assert [strike.kind for strike in played.strikes] == [kind for kind, _ in PLAN]
    assert played.problems == []
    assert (played.trials_lost, played.trials_run_twice) == (0, 0)
    # Two trials run at a time, and each of the three faults that end a trial costs each at most one told epoch.
    assert played.epochs_repeated <= 2 * 3


def test_nothing_of_it_runs_on(played: Played) -> None:
    assert played.left_over == []


def test_the_report_counts_the_faults_and_can_be_gone_on_with(played: Played, tmp_path: Path) -> None:
    save(tmp_path / "chaos.json", [played])
    again = load(tmp_path / "chaos.json")
    assert again == [played]
    assert num_faults(again) == len(PLAN)
    assert "| kill search | 1 | 0, 0, 1, 0 |" in table(again)
    assert table(again).endswith(f"| 1 | {len(PLAN)} | 0 | 0 | {played.epochs_repeated} | 0 |")
