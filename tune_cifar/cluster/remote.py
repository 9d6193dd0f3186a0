"""Runs a search on a cluster from a machine outside of it: `--address HEAD`, and `--attach` and `--stop` afterwards."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cifar.cluster.origin import check_local
from tune_cifar.cluster.remote_files import SentFiles, fetch_results, send_files
from tune_cifar.cluster.remote_flags import DEFAULT_REMOTE_RESULTS, flags_for_head
from tune_cifar.cluster.remote_head import Head, HeadFacts, ask_head, parse_address
from tune_cifar.cluster.remote_job import ConnectionLostError, RemoteJobs, remote_jobs
from tune_cifar.cluster.remote_output import JobOutput
from tune_cifar.cluster.remote_process import start_line, terminate
from tune_cifar.cluster.ssh_tunnel import SshError
from tune_cifar.command import EXIT_INTERRUPTED, EXIT_NOTHING_FINISHED, EXIT_TERMINATED
from tune_cifar.console import SearchConsole
from tune_cifar.errors import UserError
from tune_cifar.settings import check_free, search_folder
from tune_cifar.sweep.load import load_sweep
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

EXIT_CONNECTION_LOST = 3


def search_on_cluster(
    args: argparse.Namespace, arguments: Sequence[str], folder: Path, sweep: Path | None, console: SearchConsole
) -> int:
    """Start the search on the head of `--address`, show it to its end, and fetch its results into `folder`.

    `arguments` are the command line's, of which `args` were read. `sweep` is the sweep file, checked by the caller,
    or None for a resume without one. Returns the search's own exit code.
    """
    head, name = parse_address(args.address), folder.name
    if not args.resume:
        check_free(folder)
    facts = ask_head(head, name, args.remote_results or DEFAULT_REMOTE_RESULTS)
    _check_name(head, facts, name, resume=args.resume)
    check_local(folder, head.address, facts.folder)
    _say(console, f"{head.address} runs it in {facts.project}, with results in {facts.folder}")
    if args.dry_run:
        planned = SentFiles(str(sweep) if sweep else None, tuple(args.prior or ()))
        _say(console, f"it would run: {shlex.join(_command(facts, name, planned, arguments, args))}")
        console.print("Nothing was sent or started: --dry-run.")
        return 0
    with remote_jobs(head, facts, lambda line: _tell(console, line)) as jobs:
        earlier = jobs.of_search(name)
        if any(not job.status.is_terminal() for job in earlier):
            raise UserError(f"{name} is running on {head.address}. Watch it by {_again(head, folder, '--attach')}")
        sent = send_files(head, facts, name, sweep, [Path(prior) for prior in args.prior or ()])
        _say(console, "no key is sent: W&B and buckets use what is stored there, as by `wandb login` on the head")
        command = _command(facts, name, sent, arguments, args)
        entrypoint = start_line(facts, name, command, console.width)
        with _going_on(head, folder, console):
            job_id = jobs.submit(name, len(earlier) + 1, facts.folder, entrypoint)
            _say(console, f"started; Ctrl-C leaves it running, {_again(head, folder, '--stop')} ends it")
            return _watch(jobs, job_id, JobOutput(_writer(console)), head, facts.folder, folder, console)


def go_on_with_search(args: argparse.Namespace, arguments: Sequence[str], console: SearchConsole) -> int:
    """Do what --attach, --stop or --resume asks for a search that was started on the head of `--address`."""
    if args.attach:
        return _attach(args, console)
    if args.stop:
        return _stop(args, console)
    if args.sweep:
        load_sweep(args.sweep, check_parameter, EPOCH_METRICS)
    return search_on_cluster(args, arguments, search_folder(args.results, args.name), args.sweep, console)


def _attach(args: argparse.Namespace, console: SearchConsole) -> int:
    """Show the search `--attach` from its first line to its end, and fetch its results; returns its exit code."""
    folder = search_folder(args.results, args.attach)
    with _one_search(args, folder, console) as (head, _, jobs, job):
        output = JobOutput(_writer(console))
        return _watch(jobs, str(job.submission_id), output, head, _folder_of(job), folder, console)


def _stop(args: argparse.Namespace, console: SearchConsole) -> int:
    """End the search `--stop` as Ctrl-C would, show what it still says, and fetch its results; returns 0."""
    folder = search_folder(args.results, args.stop)
    with _one_search(args, folder, console) as (head, facts, jobs, job):
        job_id = str(job.submission_id)
        if job.status.is_terminal():
            raise UserError(f"{folder.name} has ended already. Fetch its results by {_again(head, folder, '--attach')}")
        output = JobOutput(_writer(console), skip_characters=jobs.log_characters(job_id))
        if terminate(head, facts, folder.name):
            _say(console, f"{folder.name} was asked to stop")
        else:
            jobs.stop(job_id)
            _tell(console, f"{folder.name} was ended at once by Ray: its process was not found on {head.address}")
        _watch(jobs, job_id, output, head, _folder_of(job), folder, console)
        return 0


@contextlib.contextmanager
def _one_search(
    args: argparse.Namespace, folder: Path, console: SearchConsole
) -> Iterator[tuple[Head, HeadFacts, RemoteJobs, JobDetails]]:
    """The newest job of the search that `folder` is named after; raises `UserError` if there is none."""
    head = parse_address(args.address)
    facts = ask_head(head, folder.name, args.remote_results or DEFAULT_REMOTE_RESULTS)
    with remote_jobs(head, facts, lambda line: _tell(console, line)) as jobs:
        found = jobs.of_search(folder.name)
        if not found:
            there = f" Its results are there, in {facts.folder}: go on with --resume." if facts.folder_exists else ""
            raise UserError(f"The Ray on {head.address} knows no search called {folder.name}.{there}")
        check_local(folder, head.address, _folder_of(found[0]))
        with _going_on(head, folder, console):
            yield head, facts, jobs, found[0]


def _watch(
    jobs: RemoteJobs,
    job_id: str,
    output: JobOutput,
    head: Head,
    remote_folder: str,
    folder: Path,
    console: SearchConsole,
) -> int:
    job = jobs.follow(job_id, output)
    exit_code = _exit_code(job)
    if job.driver_exit_code is None:
        _tell(console, f"The search was ended from outside: {job.message or job.status}")
    if fetch_results(head, remote_folder, folder):
        _say(console, f"fetched {folder} (the checkpoints stay in {remote_folder} on {head.address})")
    if exit_code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
        _tell(console, f"Go on with it by {_again(head, folder, '--resume --name')}")
    return exit_code


def _exit_code(job: JobDetails) -> int:
    """The search's own; a job that Ray stopped has none, and one killed by a signal a negative one."""
    if job.driver_exit_code is None:
        return EXIT_TERMINATED if job.status == "STOPPED" else EXIT_NOTHING_FINISHED
    code: int = job.driver_exit_code
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _going_on(head: Head, folder: Path, console: SearchConsole) -> Iterator[None]:
    """Whatever ends this command while the search runs leaves it running, and says how to come back to it."""
    hint = f"The search on {head.address} goes on. Watch it and fetch its results by {_again(head, folder, '--attach')}"
    with _hangup_as_interrupt():
        try:
            yield
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):  # the terminal may be gone
                _tell(console, f"\n{hint}")
            raise
        except (ConnectionLostError, SshError) as error:
            _tell(console, f"{error}\n{hint}")
            raise SystemExit(EXIT_CONNECTION_LOST) from None


@contextlib.contextmanager
def _hangup_as_interrupt() -> Iterator[None]:
    """A terminal that is closed ends the command as Ctrl-C does; `nohup`, which ignores it, is left alone."""
    before = signal.getsignal(signal.SIGHUP)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _interrupt(_signal: int, _frame: Any) -> None:
    signal.raise_signal(signal.SIGINT)


def _check_name(head: Head, facts: HeadFacts, name: str, *, resume: bool) -> None:
    if resume and not facts.folder_exists:
        raise UserError(f"{head.address} has no {facts.folder} to resume. Say where by --remote-results.")
    if not resume and facts.folder_exists:
        raise UserError(
            f"{facts.folder} exists on {head.address}. Go on with that search by --resume --name {name}, "
            "or choose another --name."
        )


def _command(
    facts: HeadFacts, name: str, sent: SentFiles, arguments: Sequence[str], args: argparse.Namespace
) -> list[str]:
    """The search as the head runs it, in the project's folder: the same flags, with its own paths."""
    results = args.remote_results or DEFAULT_REMOTE_RESULTS
    if results.startswith("~/"):
        results = facts.folder.removesuffix(f"/{name}")
    return [
        f"{facts.project}/.venv/bin/python",
        *("-m", "tune_cifar.search"),
        *([sent.sweep] if sent.sweep else []),
        *("--name", name, "--results", results),
        *(word for prior in sent.priors for word in ("--prior", prior)),
        *flags_for_head(arguments, args),
    ]


def _folder_of(job: JobDetails) -> str:
    from tune_cifar.cluster.remote_job import FOLDER_KEY

    return str((job.metadata or {})[FOLDER_KEY])


def _again(head: Head, folder: Path, flags: str) -> str:
    results = "" if folder.parent == Path("results") else f" --results {shlex.quote(str(folder.parent))}"
    return f"python -m tune_cifar.search --address {head.address}{results} {flags} {folder.name}"


def _writer(console: SearchConsole) -> Callable[[str], None]:
    def write(text: str) -> None:
        console.file.write(text)
        console.file.flush()

    return write


def _say(console: SearchConsole, line: str) -> None:
    """A line of progress, which --quiet leaves out."""
    console.details.print(f"cluster  {line}", soft_wrap=True, markup=False)


def _tell(console: SearchConsole, line: str) -> None:
    """What everybody needs to know."""
    console.print(line, soft_wrap=True, markup=False)
