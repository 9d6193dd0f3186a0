"""The job server of a cluster's head (https://docs.ray.io/en/latest/cluster/running-applications/job-submission/),
spoken to through a tunnel that is opened again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import json
import logging
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from tune_cifar.cluster.remote_head import Head, HeadFacts
from tune_cifar.cluster.remote_output import JobOutput
from tune_cifar.cluster.ssh_tunnel import SshError, SshTunnel, ssh_tunnel
from tune_cifar.errors import UserError
from tune_cifar.scrubbing import scrub

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

PATIENCE_SECONDS = 600.0
"""How long a broken connection is tried again before the command ends; the search goes on without it."""

NAME_KEY, FOLDER_KEY, _REQUEST_KEY = "tune_cifar_name", "tune_cifar_folder", "tune_cifar_request"

_REPLY_SECONDS = 30
_LONGEST_WAIT_SECONDS = 30.0
_MOST_BREAKS, _BREAKS_WITHIN_SECONDS = 5, 30.0

Answer = TypeVar("Answer")


class ConnectionLostError(UserError):
    """The head could not be reached for `PATIENCE_SECONDS`; what runs there goes on."""


class RemoteJobs:
    """The searches that were submitted to a cluster, by name."""

    def __init__(self, head: Head, token: str | None, tunnel: SshTunnel, say: Callable[[str], None]) -> None:
        self._head, self._token, self._tunnel, self._say = head, token, tunnel, say
        self._client = self._connect()

    def of_search(self, name: str) -> list[JobDetails]:
        """The jobs of the search called `name`, the newest first: its start, and its resumes."""
        jobs = [
            job for job in self._call(lambda client: client.list_jobs()) if (job.metadata or {}).get(NAME_KEY) == name
        ]
        return sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)

    def submit(self, name: str, number: int, folder: str, entrypoint: str) -> str:
        """Start job `number` of a search; returns its id. Raises `UserError` if someone else just did."""
        job_id = f"search-{number}-{name}"
        request = uuid.uuid4().hex
        metadata = {NAME_KEY: name, FOLDER_KEY: folder, _REQUEST_KEY: request}

        def submit_once(client: JobSubmissionClient) -> str:
            # The answer to an earlier try may have been lost with the connection.
            for job in client.list_jobs():
                if job.submission_id == job_id:
                    if (job.metadata or {}).get(_REQUEST_KEY) == request:
                        return job_id
                    raise UserError(f"A search called {name} was just started on {self._head.address} by another.")
            client.submit_job(entrypoint=entrypoint, submission_id=job_id, metadata=metadata)
            return job_id

        return self._call(submit_once)

    def stop(self, job_id: str) -> None:
        """End a job at once."""
        self._call(lambda client: client.stop_job(job_id))

    def log_characters(self, job_id: str) -> int:
        """How long the job's log is now."""
        return len(self._call(lambda client: client.get_job_logs(job_id)))

    def follow(self, job_id: str, output: JobOutput) -> JobDetails:
        """Pass the job's log on as it grows, over broken connections; returns when the job has ended."""

        def watch(client: JobSubmissionClient) -> JobDetails:
            while True:
                asyncio.run(_tail(client, job_id, output))
                job = client.get_job_info(job_id)
                if job.status.is_terminal():
                    return job
                time.sleep(1)  # the server ended the stream early

        job = self._call(watch)
        output.finish(self._call(lambda client: client.get_job_logs(job_id)))
        return job

    def _call(self, action: Callable[[JobSubmissionClient], Answer]) -> Answer:
        """Do `action`, once more after each break of the connection."""
        breaks, last_seconds = 0, 0.0
        while True:
            try:
                return action(self._client)
            except Exception as error:
                if not _is_break(error):
                    raise
                breaks = breaks + 1 if time.monotonic() - last_seconds < _BREAKS_WITHIN_SECONDS else 1
                if breaks > _MOST_BREAKS:
                    said = scrub(str(error))[:500]
                    raise ConnectionLostError(f"The job server on {self._head.address} fails: {said}") from None
                self._reconnect()
                last_seconds = time.monotonic()
                time.sleep(breaks)

    def _reconnect(self) -> None:
        """Open the tunnel again; raises `ConnectionLostError` when that does not come about."""
        where = self._head.address
        self._say(f"The connection to {where} broke. The search goes on there; trying to connect again.")
        deadline = time.monotonic() + PATIENCE_SECONDS
        wait_seconds = 1.0
        while True:
            try:
                self._tunnel.open()
                self._client = self._connect()
                return
            except UserError as error:
                if time.monotonic() > deadline:
                    raise ConnectionLostError(f"The connection to {where} did not come back: {error}") from None
            time.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)

    def _connect(self) -> JobSubmissionClient:
        url = f"http://127.0.0.1:{self._tunnel.port}"
        _check_ray(self._head, url, self._token)
        from ray.job_submission import JobSubmissionClient

        # It notes the end of each stream of output (ray 2.60).
        logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else None
        try:
            return JobSubmissionClient(url, headers=headers)
        except Exception as error:
            if _is_break(error):
                raise SshError(f"The connection to {self._head.address} broke.") from None
            raise


@contextlib.contextmanager
def remote_jobs(head: Head, facts: HeadFacts, say: Callable[[str], None]) -> Iterator[RemoteJobs]:
    """A connection to the head's job server; raises `UserError` when there is none or it is another version's."""
    if importlib.util.find_spec("aiohttp") is None:
        raise UserError("--address needs Ray's job client: pip install 'tune-cifar[cluster]'")
    token = os.environ.get("RAY_AUTH_TOKEN") or facts.token
    with _own_environment(), ssh_tunnel(head.login, head.dashboard_port) as tunnel:
        yield RemoteJobs(head, token, tunnel, say)


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Without the addresses that Ray's client prefers to the one it is given, and no proxy before the tunnel."""
    kept = dict(os.environ)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [kept.get(name), "127.0.0.1"]))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _check_ray(head: Head, url: str, token: str | None) -> None:
    """Raise `UserError` unless a Ray of our version, which takes the token, is at the tunnel's other end."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{url}/api/version", headers=headers)  # noqa: S310 - our own loopback
    port = head.dashboard_port
    try:
        with urllib.request.urlopen(request, timeout=_REPLY_SECONDS) as response:  # noqa: S310
            running = json.load(response)["ray_version"]
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            used = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else "~/.ray/auth_token there"
            raise UserError(
                f"The Ray on {head.address} does not take the token of {used}{'' if token else ', which is missing'}. "
                "Put the cluster's token there, or unset RAY_AUTH_TOKEN."
            ) from None
        raise UserError(
            f"What answers on port {port} of {head.address} is no Ray ({error.code} {error.reason})."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"What answers on port {port} of {head.address} is no Ray.") from None
    except (OSError, http.client.HTTPException):
        raise UserError(
            f"No Ray answers on port {port} of {head.address}. Start it (`make cluster-up`), with ray[default] "
            "installed, which brings the job server; for another port say --address HOST:PORT."
        ) from None
    if running != version("ray"):
        raise UserError(
            f"{head.address} runs Ray {running}, this machine has {version('ray')}. Install the same on both."
        )


async def _tail(client: JobSubmissionClient, job_id: str, output: JobOutput) -> None:
    output.start_over()
    async for text in client.tail_job_logs(job_id):
        output.feed(text)


def _is_break(error: Exception) -> bool:
    """Whether the connection broke or the server was not ready, which may pass, and not a refusal."""
    import aiohttp

    if isinstance(error, RuntimeError):  # all that Ray's client raises by itself (ray 2.60)
        return not str(error).startswith("Request failed with status code 4")
    transient: tuple[Any, ...] = (OSError, aiohttp.ClientError)
    return isinstance(error, transient)
