"""Publishes as a model artifact of Weights & Biases, and into a registry where one is named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.record import PublishedModel
from tune_cifar.publish.retry import PublishError, RetryPolicy
from tune_cifar.publish.target import Receipt, Say
from tune_cifar.tracking.wandb_mode import check_key, set_up_client


@dataclass(frozen=True)
class WandbTarget:
    """`wandb`: a version of the artifact <name>, with the aliases `best` and the search's name.

    It is logged by a run of its own of job type `publish`, in the group of the search's runs.
    """

    text: str
    project: str
    entity: str | None
    registry: str | None
    search: Path
    policy: RetryPolicy

    def check(self) -> None:
        """W&B must find a key."""
        if self.registry is not None and (not self.registry or "/" in self.registry):
            raise UserError(f"--wandb-registry must be the name of a registry, got {self.registry!r}.")
        check_key(self.text)

    def describe(self, name: str) -> str:
        """The artifact, its aliases and the registry."""
        registry = f", linked to registry {self.registry}" if self.registry else ""
        place = f"{self.entity}/{self.project}" if self.entity else self.project
        return f"artifact {name} of type model in {place}, aliases best and {self.search.name}{registry}"

    def publish(self, bundle: Bundle, *, again: bool, recorded: PublishedModel | None, say: Say) -> Receipt:
        """Log the artifact and wait until W&B has it; the server makes no second version of the same bytes."""
        import wandb

        set_up_client()
        try:
            if recorded and not again:
                if self.registry:  # it may have been published before without one
                    api = wandb.Api(timeout=max(1, round(self.policy.reply_seconds)))
                    self._link(api.artifact(recorded.uri.removeprefix("wandb://")), bundle.name)
                return Receipt(recorded.uri, recorded.id, existed=True)
            with self._run() as run:
                artifact = run.log_artifact(self._artifact(bundle), aliases=["best", self.search.name])
                artifact.wait(timeout=round(self.policy.total_seconds))
                if self.registry:
                    self._link(artifact, bundle.name)
                place = f"{run.entity}/{run.project}/{artifact.name}"
                return Receipt(uri=f"wandb://{place}", id=str(artifact.id))
        except (wandb.Error, ValueError, TimeoutError, OSError) as error:
            raise PublishError(f"W&B: {type(error).__name__}: {error}") from error

    def _link(self, artifact: Any, name: str) -> None:
        """Link the artifact to the registry, under its own name."""
        artifact.link(f"wandb-registry-{self.registry}/{name}", aliases=["best"])

    def _artifact(self, bundle: Bundle) -> Any:
        import wandb

        manifest = bundle.manifest
        metadata = {
            "sha256": manifest.sha256,
            "model": manifest.model,
            "metric": manifest.metric,
            "metric_value": manifest.metric_value,
            "scores": dict(manifest.scores),
            "config": dict(manifest.config),
            "trial_id": manifest.trial_id,
            "data": manifest.data,
            "data_fingerprint": manifest.data_fingerprint,
        }
        artifact = wandb.Artifact(bundle.name, type="model", metadata=metadata)
        for file in bundle.files:
            artifact.add_file(str(file.path), name=file.name, policy="immutable")
        return artifact

    @contextlib.contextmanager
    def _run(self) -> Iterator[Any]:
        import wandb

        from tune_cifar.tracking.wandb_run import run_settings

        run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.search.name,
            job_type="publish",
            name=f"publish {self.search.name}",
            dir=str(self.search),
            mode="online",
            reinit="create_new",
            settings=run_settings(self.policy.reply_seconds, self.policy.reply_seconds),
        )
        try:
            yield run
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                run.finish(exit_code=1)
            raise
        run.finish()
