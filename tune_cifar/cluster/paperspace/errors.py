"""Failures of rented machines as Ray shows them: one message for `ray up`, a category for the autoscaler's status."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import click
from ray.autoscaler.node_launch_exception import NodeLaunchException

from tune_cifar.cluster.paperspace.machines import MachinesApi
from tune_cifar.cluster.paperspace.settings import NodeSettings, ProviderSettings
from tune_cifar.errors import UserError
from tune_cifar.publish.retry import PublishError, TransientError

_NO_ACCESS = frozenset({401, 403})
_SHOWN_TEMPLATES = 12
Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


class ClusterError(click.ClickException, UserError):
    """A message that Ray's command line prints alone, without a traceback, as the project's own commands do."""


class LaunchError(NodeLaunchException, ClusterError):  # type: ignore[misc]  # Ray has no types
    """No machine, or not enough; `category` is a short word that `ray status` shows."""

    def __init__(self, category: str, description: str) -> None:
        NodeLaunchException.__init__(self, category, description, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.category, self.description)

    def format_message(self) -> str:
        """What `ray up` prints."""
        return str(self.description)


def told(action: Callable[Arguments, Outcome]) -> Callable[Arguments, Outcome]:
    """`action` with every failure of the service or the file as a `ClusterError`."""

    @functools.wraps(action)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Outcome:
        try:
            return action(*args, **kwargs)
        except ClusterError:
            raise
        except UserError as error:
            raise ClusterError(str(error)) from None
        except PublishError as error:
            raise ClusterError(explain(error)) from None

    return run


def explain(error: PublishError) -> str:
    """`error` with what to do about it."""
    if error.status in _NO_ACCESS:
        return f"Paperspace refuses the key: {error}. Is PAPERSPACE_API_KEY a key of the right team, and still valid?"
    return f"Paperspace: {error}"


def launch_error(error: PublishError, node: NodeSettings, settings: ProviderSettings, api: MachinesApi) -> LaunchError:
    """Why a machine was refused, from the service's words and from what it says it has.

    The API documents no codes for its refusals, so the words are only read for quota and capacity, and whatever the
    service said is shown whole.
    """
    wanted = f"machineType {node.machine_type}, region {settings.region}, templateId {node.template_id}"
    words = str(error).lower()
    text = f"no machine ({wanted}): {explain(error)}"
    if error.status in _NO_ACCESS:
        return LaunchError("no access", text)
    if isinstance(error, TransientError):
        return LaunchError("service busy", f"{text}. One that was made all the same shows in `make cluster-list`.")
    if "quota" in words or "limit" in words:
        return LaunchError("quota", f"{text}. Ask for more in the console, or lower max_workers.")
    try:
        if problem := _template_problem(node, settings, api):
            return LaunchError("wrong request", f"{text}. {problem}")
        if "capacity" in words or not api.is_available(node.machine_type, settings.region):
            advice = "There are none of this type in the region now: try another type or region, or later."
            return LaunchError("no capacity", f"{text}. {advice}")
    except PublishError:
        pass  # the refusal itself is what counts, not the question why
    return LaunchError("refused", text)


def _template_problem(node: NodeSettings, settings: ProviderSettings, api: MachinesApi) -> str | None:
    templates = [*api.items("/os-templates"), *api.items("/custom-templates")]
    chosen = next((item for item in templates if item.get("id") == node.template_id), None)
    if chosen is None:
        known = ", ".join(f"{item.get('id')} ({item.get('name')})" for item in templates[:_SHOWN_TEMPLATES])
        return f"There is no template {node.template_id}; there are: {known or 'none'}"
    labels = [str(entry.get("machineTypeLabel")) for entry in chosen.get("availableMachineTypes", [])]
    if node.machine_type.lower() not in [label.lower() for label in labels]:
        return f"Template {node.template_id} is not offered for {node.machine_type}, but for: {', '.join(labels)}"
    region = str(chosen.get("region") or settings.region)  # only a team's own templates have one
    if settings.region.lower() not in region.lower():  # the docs write ny2 as well as East Coast (NY2)
        return f"Template {node.template_id} is in region {region}, not in {settings.region}"
    return None
