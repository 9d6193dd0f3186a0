"""What every place that can take a model has in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.record import PublishedModel
from tune_cifar.publish.retry import RetryPolicy

Say = Callable[[str], None]


@dataclass(frozen=True)
class PublishOptions:
    """The search whose model is published, and what targets need beside their own text."""

    search: Path
    wandb_project: str = "tune-cifar"
    wandb_entity: str | None = None
    wandb_registry: str | None = None
    gradient_project: str | None = None
    storage_provider: str | None = None
    policy: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True)
class Receipt:
    """Where the model is now; `existed` says that it was there already and nothing was sent."""

    uri: str
    id: str
    existed: bool = False


class Target(Protocol):
    """A place for a model. `text` is what the user typed for it."""

    @property
    def text(self) -> str:
        """The target as on the command line; holds no key."""

    def check(self) -> None:
        """Raise `UserError` for what can be told to be wrong on this machine, such as a missing key."""

    def describe(self, name: str) -> str:
        """In one line where the model called `name` would go, for --dry-run."""

    def publish(self, bundle: Bundle, *, again: bool, recorded: PublishedModel | None, say: Say) -> Receipt:
        """Send the model unless it is there (or `again`); `recorded` is its entry in published.json.

        Raises `PublishError` when it could not be done.
        """
