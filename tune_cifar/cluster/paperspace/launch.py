"""Waits for new machines, and takes back those that never become ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tune_cifar.cluster.paperspace.deletion import Deletion
from tune_cifar.cluster.paperspace.errors import LaunchError
from tune_cifar.cluster.paperspace.machines import Machine, MachinesApi
from tune_cifar.errors import UserError

DELETE_SECONDS = 300.0


def wait_until_ready(
    api: MachinesApi,
    deletion: Deletion,
    made: Sequence[Machine],
    limit_seconds: float,
    poll_seconds: float,
    say: Callable[[str], None],
) -> list[Machine]:
    """The machines of `made` when all are ready.

    One that the service gives up, or that is not ready after `limit_seconds`, is deleted and told as `LaunchError`;
    the others stay, and Ray finds them by their names.
    """
    names = {machine.name for machine in made}
    ready: dict[str, Machine] = {}
    failed: dict[str, str] = {}
    deadline_seconds = time.monotonic() + limit_seconds
    try:
        while made:
            found = _without_twins(
                deletion, [machine for machine in api.machines() if machine.name in names], made, say
            )
            ready = {machine.name: machine for machine in found if machine.state == "ready"}
            waiting = [machine for machine in made if machine.name not in ready and machine.id not in failed]
            failed |= {machine.id: reason for machine in waiting if (reason := api.creation_failure(machine.id))}
            waiting = [machine for machine in waiting if machine.id not in failed]
            if not waiting:
                break
            if time.monotonic() > deadline_seconds:
                failed |= {machine.id: f"not ready after {limit_seconds / 60:g} minutes" for machine in waiting}
                break
            time.sleep(poll_seconds)
    except BaseException:
        say(f"created and left as they are: {', '.join(machine.id for machine in made)}; `ray down` deletes them")
        raise
    if failed:
        reasons = "; ".join(f"{machine_id}: {reason}" for machine_id, reason in failed.items())
        try:
            deletion.finish(failed, DELETE_SECONDS, poll_seconds)
        except UserError as error:
            raise LaunchError("never ready", f"{reasons}\n{error}") from None
        raise LaunchError("never ready", f"deleted again, for they never became ready: {reasons}")
    return list(ready.values())


def _without_twins(
    deletion: Deletion, found: Sequence[Machine], made: Sequence[Machine], say: Callable[[str], None]
) -> list[Machine]:
    """One machine of each name: a request made again, although the first had gone through, leaves two of one name."""
    known = {machine.id for machine in made}
    kept: dict[str, Machine] = {}
    for machine in sorted(found, key=lambda machine: machine.id not in known):
        if machine.name not in kept:
            kept[machine.name] = machine
        elif not deletion.is_pending(machine.id):
            say(f"{machine.id} was made twice over, as {kept[machine.name].id}: it is deleted")
            deletion.ask([machine.id])
    return list(kept.values())
