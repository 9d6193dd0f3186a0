"""Publishes as the tutorial does, by `ModelsClient.upload` of Paperspace's SDK, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.gradient_environment import find_uv, gradient_python
from tune_cifar.publish.record import PublishedModel
from tune_cifar.publish.retry import PublishError, RetryPolicy, TransientError, parse_retry_after, with_retries
from tune_cifar.publish.target import Receipt, Say
from tune_cifar.scrubbing import environment_without_secrets

DEFAULT_HOST = "https://api.paperspace.io"  # the SDK's own
_UPLOAD_SCRIPT = Path(__file__).with_name("gradient_upload.py")
_CLEANING_SECONDS = 15.0
_GONE = (
    "The API that this SDK speaks is documented as no longer available since 15 July 2024 "
    "(https://docs.digitalocean.com/reference/paperspace/core). Ways that are alive: --to "
    "paperspace:s3://BUCKET/PREFIX (Paperspace's v1 API), s3://BUCKET/PREFIX, hf://ORG/NAME, wandb, or a folder"
)


@dataclass(frozen=True)
class GradientTarget:
    """`gradient`: a model of type Custom in the project `project_id`, at PAPERSPACE_CONFIG_HOST or the SDK's host."""

    text: str
    project_id: str | None
    policy: RetryPolicy

    @property
    def host(self) -> str:
        """The base address that the SDK will use."""
        return os.environ.get("PAPERSPACE_CONFIG_HOST") or DEFAULT_HOST

    def check(self) -> None:
        """The key, the project and uv must be there."""
        check_paperspace_key(self.text)
        if not self.project_id:
            raise UserError(f"{self.text}: give the project by --gradient-project or GRADIENT_PROJECT_ID.")
        find_uv()

    def describe(self, name: str) -> str:
        """The one file of the tutorial, the project and the host."""
        return f"{name}.pth as model {name} to project {self.project_id} at {self.host}"

    def publish(self, bundle: Bundle, *, again: bool, recorded: PublishedModel | None, say: Say) -> Receipt:
        """Upload the weights, read them back, and give up with what is alive where the API is gone."""
        python = gradient_python()
        order = {
            "path": str(bundle.weights.path),
            "name": bundle.name,
            "sha256": bundle.weights.sha256,
            "project_id": self.project_id,
            "known_id": recorded.id if recorded else None,
            "again": again,
            "reply_seconds": self.policy.reply_seconds,
        }
        try:
            answer = with_retries(lambda: self._ask(python, order, say), self.policy, say)
        except _UnreachableError as error:
            raise PublishError(f"{error}. {_GONE}") from error
        return Receipt(uri=f"gradient://{self.project_id}/{answer['id']}", id=answer["id"], existed=answer["existed"])

    def _ask(self, python: Path, order: dict[str, Any], say: Say) -> dict[str, Any]:
        environment = environment_without_secrets() | {"PAPERSPACE_API_KEY": os.environ["PAPERSPACE_API_KEY"]}
        may_be_left = f"a model {order['name']} may have been left in project {self.project_id}"
        process = subprocess.Popen(  # noqa: S603 - our own script, the order on standard input
            [str(python), "-I", str(_UPLOAD_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            # A terminal sends Ctrl-C to the whole session: it would break off the cleaning up that `_stop` waits for.
            start_new_session=True,
        )
        with process:
            try:
                output, errors = process.communicate(json.dumps(order), timeout=self.policy.total_seconds)
            except subprocess.TimeoutExpired:
                _stop(process)
                told = f"no answer from {self.host} in {self.policy.total_seconds:g} s; {may_be_left}"
                raise PublishError(told) from None
            except BaseException:
                left = _stop(process)
                if left is None or left:
                    say(f"left half-made there: model {', '.join(left)}" if left else may_be_left)
                raise
        try:
            answer: dict[str, Any] = json.loads(output)
        except ValueError:
            raise PublishError(f"the SDK's process ended with {process.returncode}: {errors[-400:]}") from None
        if "error" in answer:
            raise self._failure(answer)
        return answer

    def _failure(self, answer: dict[str, Any]) -> PublishError:
        left = f"; left half-made there: model {', '.join(answer['left'])}" if answer["left"] else ""
        text = f"{self.host}: {answer['error']}{left}"
        if answer["kind"] == "key":
            return PublishError(f"{self.host} refused the key in PAPERSPACE_API_KEY{left}")
        if answer["kind"] == "gone":
            return PublishError(f"{text}. {_GONE}")
        if answer["kind"] == "unreachable":
            return _UnreachableError(text)
        if answer["kind"] == "busy":
            return TransientError(text, parse_retry_after(answer["retry_after"]))
        return PublishError(text)


def _stop(process: subprocess.Popen[str]) -> list[str] | None:
    """End the SDK's process as Ctrl-C does, on which it deletes the model that it has begun.

    Returns the models that it could not delete, None where it did not end in time.
    """
    try:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=_CLEANING_SECONDS)
        left: list[str] = json.loads(output)["left"] if output else []
        return left
    except (subprocess.TimeoutExpired, ValueError):
        return None
    finally:
        process.kill()


class _UnreachableError(TransientError):
    """No answer from the host; when that lasts, it is what an API that was switched off looks like."""


def check_paperspace_key(target: str) -> None:
    """Raise `UserError` without a key for Paperspace."""
    if not os.environ.get("PAPERSPACE_API_KEY"):
        raise UserError(f"{target}: set PAPERSPACE_API_KEY to a key of your team (console.paperspace.com).")
