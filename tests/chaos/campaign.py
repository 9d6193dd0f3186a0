"""Plays searches with faults one after another and counts what came of them."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.checks import Verdict, check
from tests.chaos.faults import LOCAL, Arena, Cluster, Kind, small_disk
from tests.chaos.moments import MOMENTS, Moment, wait_for
from tests.chaos.search_under_test import search_under_test
from tests.tracking.wandb_helpers import KEY
from tests.tracking.wandb_server import WandbServer

DISK_BYTES = 3 << 30
"""Six trials of ResNet18 with at most two checkpoints of 90 MB each, the best model, and as much again."""
MOST_ATTEMPTS = 20


@dataclass(frozen=True)
class Scenario:
    """One way to run a search, and the faults that can hit it."""

    name: str
    method: str
    trials_at_once: int
    faults: tuple[Kind, ...]
    wandb: str = "offline"
    place: str = ""


SCENARIOS = (
    Scenario("random, 2 at once, W&B offline", "random", 2, LOCAL),
    Scenario("bayes, 1 at once, W&B offline", "bayes", 1, LOCAL),
    Scenario("grid, 2 at once, W&B online", "grid", 2, (*LOCAL, "W&B down", "W&B down"), wandb="online"),
    Scenario("grid, 2 at once, small disk", "grid", 2, ("disk full", "disk full", "kill search"), place="disk"),
    Scenario("random, 2 at once, cluster", "random", 2, ("node lost", "node lost", "kill search"), place="cluster"),
    Scenario("bayes, 2 at once, W&B online", "bayes", 2, (*LOCAL, "W&B down"), wandb="online"),
)


@dataclass(frozen=True)
class Strike:
    """One fault: when it hit, and how the search took it. `exit_code` is None where the search hung and was killed.

    `ended` tells whether the search ended by the fault, or went on to its end; `seconds` are from fault to end.
    """

    kind: Kind
    moment: Moment
    exit_code: int | None
    seconds: float
    ended: bool


@dataclass
class Played:
    """One search from its first start to its end."""

    scenario: str
    seed: int
    strikes: list[Strike] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    trials_lost: int = 0
    trials_run_twice: int = 0
    epochs_repeated: int = 0
    seconds: float = 0.0

    def take(self, verdict: Verdict) -> None:
        """Add what the checks found."""
        self.problems += verdict.problems
        self.trials_lost = verdict.trials_lost
        self.trials_run_twice = verdict.trials_run_twice
        self.epochs_repeated = verdict.epochs_repeated


Plan = Sequence[tuple[Kind, Moment]]


def draw_plan(scenario: Scenario, random: Random) -> Plan:
    """Three to five faults, each with its moment, the end's last; the kinds come from a shuffled deck of all."""
    deck = random.sample(scenario.faults, len(scenario.faults)) * 2
    plan = [(kind, random.choice(MOMENTS)) for kind in deck[: random.randint(3, 5)]]
    return sorted(plan, key=lambda fault: fault[1] == "end")


def play(scenario: Scenario, plan: Plan, seed: int, *, keep: bool = False) -> Played:
    """Run one search through the faults of `plan` to its end, resuming it as often as it takes, and check it.

    The folder of a search that broke a promise is kept, and named among the problems, if `keep`.
    """
    random, played, started = Random(seed), Played(scenario.name, seed), time.monotonic()
    with _arena(scenario, seed) as arena:
        faults = list(plan)
        arena.search.start()
        while arena.search.attempts <= MOST_ATTEMPTS:
            code = _attempt(arena, faults, played, random)
            if code == 0:
                break
            if not faults and code != 0 and arena.search.attempts > len(plan) + 1:
                played.problems.append(f"a resume without a fault ended with {code}: {arena.search.last_output[-600:]}")
                break
            arena.search.start()
        played.take(check(arena.search, arena.server))
        arena.search.end_processes()
        played.left_over = arena.search.left_over
        if played.problems and keep:
            kept = Path(tempfile.mkdtemp(prefix="chaos-kept-"))
            for path in arena.search.folder.glob("output-*.txt"):
                shutil.copy(path, kept)
            shutil.copytree(arena.search.results, kept / "results", ignore=shutil.ignore_patterns("*.pt", "*.pth"))
            played.problems.append(f"kept in {kept}")
    played.seconds = time.monotonic() - started
    return played


def _attempt(arena: Arena, faults: list[tuple[Kind, Moment]], played: Played, random: Random) -> int | None:
    """Inject faults into the running search until it ends; returns its exit code."""
    search = arena.search
    while faults:
        kind, moment = faults.pop(0)
        if not wait_for(moment, search, random):
            continue
        struck_at = time.monotonic()
        if not arena.strike(kind, random):
            continue
        if kind in ("kill trial", "W&B down", "node lost"):  # the search goes on by itself
            played.strikes.append(Strike(kind, moment, 0, 0.0, ended=False))
            continue
        code = search.wait()
        arena.mend()
        if code is None:
            played.problems.append(f"{kind}: the search neither ended nor went on")
        played.strikes.append(Strike(kind, moment, code, time.monotonic() - struck_at, ended=code != 0))
        return code
    code = search.wait()
    arena.mend()
    return code


@contextlib.contextmanager
def _arena(scenario: Scenario, seed: int) -> Iterator[Arena]:
    options: dict[str, Any] = {"trials_at_once": scenario.trials_at_once, "wandb": scenario.wandb, "seed": seed}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos", ignore_cleanup_errors=True)))
        if scenario.place == "disk":
            stack.enter_context(small_disk(folder / "results", DISK_BYTES))
        search = stack.enter_context(search_under_test(scenario.method, folder=folder, **options))
        arena = Arena(search)
        if scenario.wandb == "online":
            arena.server = WandbServer()
            arena.server.__enter__()
            stack.callback(_end_server, arena)
            online = {"WANDB_BASE_URL": arena.server.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}
            search.variables |= online
        if scenario.place == "cluster":
            arena.cluster = Cluster(folder, search.ray_folder)
            stack.callback(arena.cluster.end)
            search.variables["RAY_ADDRESS"] = arena.cluster.address
        yield arena


def _end_server(arena: Arena) -> None:
    if arena.server is not None:
        arena.server.die()


def table(games: Sequence[Played]) -> str:
    """The faults by kind, and what they cost, as a Markdown table."""
    kinds = sorted({strike.kind for game in games for strike in game.strikes})
    lines = ["| fault | injected | of these at start, epoch, snapshot, end |", "|---|---|---|"]
    for kind in kinds:
        moments = [strike.moment for game in games for strike in game.strikes if strike.kind == kind]
        when = ", ".join(str(moments.count(moment)) for moment in ("start", "epoch", "snapshot", "end"))
        lines.append(f"| {kind} | {len(moments)} | {when} |")
    lines += ["", "| searches | faults | trials lost | trials run twice | epochs repeated | broken promises |"]
    lines += ["|---|---|---|---|---|---|"]
    sums = [
        sum(getattr(game, name) for game in games) for name in ("trials_lost", "trials_run_twice", "epochs_repeated")
    ]
    cells = [len(games), num_faults(games), *sums, sum(len(game.problems) for game in games)]
    return "\n".join([*lines, f"| {' | '.join(map(str, cells))} |"])


def num_faults(games: Sequence[Played]) -> int:
    """How many faults were injected."""
    return sum(len(game.strikes) for game in games)


def save(path: Path, games: Sequence[Played]) -> None:
    """Write the report, so that a campaign can go on where it was stopped."""
    path.write_text(json.dumps({"searches": [asdict(game) for game in games]}, indent=2) + "\n")


def load(path: Path) -> list[Played]:
    """Read the report of an earlier part of the campaign."""
    if not path.exists():
        return []
    rows = json.loads(path.read_text())["searches"]
    return [Played(**{**row, "strikes": [Strike(**strike) for strike in row["strikes"]]}) for row in rows]
