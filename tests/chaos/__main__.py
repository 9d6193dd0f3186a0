"""`python -m tests.chaos`: many searches, at least 50 faults; the long form of the chaos test."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from random import Random

from tests.chaos.campaign import SCENARIOS, Played, draw_plan, load, num_faults, play, save, table


def main() -> int:
    """Play searches until enough faults were injected; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the faults, their moments and the searches")
    parser.add_argument("--faults", type=int, default=50, help="how many at least (default 50)")
    parser.add_argument("--minutes", type=float, help="start no further search after so many minutes")
    parser.add_argument("--scenario", help="only the scenarios whose name contains this")
    parser.add_argument("--json", type=Path, help="the report; a campaign that has one goes on where it was stopped")
    args = parser.parse_args()
    # Ended by any of the two, it ends the search that it plays as well; a background job ignores SIGINT unless told.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    games = load(args.json) if args.json else []
    scenarios = [scenario for scenario in SCENARIOS if (args.scenario or "") in scenario.name]
    deadline = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    while num_faults(games) < args.faults and time.monotonic() < deadline:
        number = len(games)
        seed = 1000 * args.seed + number
        scenario = scenarios[number % len(scenarios)]
        try:
            games.append(play(scenario, draw_plan(scenario, Random(seed)), seed, keep=True))
        except PermissionError as error:
            print(f"left out: {scenario.name} ({error})")
            scenarios.remove(scenario)
            continue
        _tell(games[-1])
        if args.json:
            save(args.json, games)
    print(f"\n{table(games)}")
    return 1 if any(game.problems for game in games) else 0


def _tell(game: Played) -> None:
    faults = ", ".join(f"{strike.kind} at {strike.moment} ({strike.exit_code})" for strike in game.strikes)
    print(f"seed {game.seed}  {game.scenario}: {faults or 'no fault'}; {game.seconds:.0f} s", flush=True)
    for line in [*game.problems, *(f"left over: {process}" for process in game.left_over)]:
        print(f"  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
