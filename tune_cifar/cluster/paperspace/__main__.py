"""`python -m tune_cifar.cluster.paperspace`: every machine of this project that Paperspace still charges for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table

from tune_cifar.cluster.paperspace.deletion import Deletion
from tune_cifar.cluster.paperspace.machines import Machine, MachinesApi, api_url
from tune_cifar.cluster.paperspace.node_names import PREFIX, parse_name
from tune_cifar.cluster.paperspace.settings import read_api_key
from tune_cifar.command import run_command
from tune_cifar.errors import UserError
from tune_cifar.publish.http_api import JsonApi
from tune_cifar.publish.retry import PublishError, RetryPolicy

EXIT_MACHINES_LEFT = 1
_DELETE_SECONDS = 300.0
_POLL_SECONDS = 5.0


def main(arguments: Sequence[str]) -> int:
    """List the machines of all clusters; exit code 1 with --expect-none where there are any."""
    args = _parse(arguments)
    console = Console(highlight=False, soft_wrap=True)
    policy = RetryPolicy()
    api = MachinesApi(JsonApi(api_url(), read_api_key(None), policy.reply_seconds), policy, console.print)
    try:
        if args.delete:
            Deletion(api).finish(args.delete, _DELETE_SECONDS, _POLL_SECONDS)
            console.print(f"deleted: {', '.join(args.delete)}", markup=False)
        machines = [machine for machine in api.machines() if machine.name.startswith(PREFIX)]
    except PublishError as error:
        raise UserError(f"Paperspace: {error}") from None
    if not machines:
        console.print("No machine of this project is left.")
        return 0
    console.print(_table(machines, datetime.now(UTC)))
    console.print(
        "The rates are the API's; it does not say in which unit. A machine that is off still costs its storage."
    )
    return EXIT_MACHINES_LEFT if args.expect_none else 0


def _table(machines: Sequence[Machine], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("machine", "cluster", "node", "type", "state", "age", "usage rate", "storage rate"):
        table.add_column(heading, no_wrap=True)
    for machine in sorted(machines, key=lambda machine: machine.name):
        name = parse_name(machine.name)
        cluster, node = (name.cluster, f"{name.kind} {name.node_type}, {name.status}") if name else (machine.name, "?")
        rates = ("?" if rate is None else f"{rate:g}" for rate in (machine.usage_rate, machine.storage_rate))
        table.add_row(machine.id, cluster, node, machine.machine_type, machine.state, _age(machine, now), *rates)
    return table


def _age(machine: Machine, now: datetime) -> str:
    if machine.created is None:
        return "?"
    minutes = max(timedelta(), now - machine.created) // timedelta(minutes=1)
    return f"{minutes // 60} h {minutes % 60:02} min"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tune_cifar.cluster.paperspace",
        description="List the Paperspace machines that `ray up` made for this project.",
    )
    parser.add_argument("--expect-none", action="store_true", help="exit with 1 if there are any")
    parser.add_argument("--delete", nargs="+", metavar="ID", help="delete these machines first, and wait for their end")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
