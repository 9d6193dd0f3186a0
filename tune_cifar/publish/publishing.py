"""Publishes the best model of a search to every target that was asked for, each on its own."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tune_cifar.command import EXIT_NOT_PUBLISHED
from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle, make_bundle
from tune_cifar.publish.record import (
    PUBLISHED_FILE,
    PublishedModel,
    add_published,
    now_utc,
    read_published,
    repeat_in_summary,
)
from tune_cifar.publish.retry import PublishError
from tune_cifar.publish.target import PublishOptions, Receipt, Target
from tune_cifar.report.finish import BEST_FOLDER
from tune_cifar.scrubbing import scrub

_MEGABYTE = 1e6


@dataclass(frozen=True)
class Publishing:
    """Where the model of one search is to go: checked `targets`, and the `options` they were made from."""

    targets: Sequence[Target]
    options: PublishOptions

    def run(self, console: Console, *, again: bool = False, dry_run: bool = False) -> int:
        """Publish results/NAME/best and write down where it is; returns the exit code, 1 if a target failed.

        Raises `UserError` when there is no model or its sha256 is not the manifest's: nothing was sent then.
        """
        folder = self.options.search
        failed = []
        with tempfile.TemporaryDirectory(prefix="tune-cifar-publish-") as staging:
            try:
                bundle = make_bundle(folder / BEST_FOLDER, Path(staging))
                if not dry_run:
                    repeat_in_summary(folder)  # a resumed search wrote its summary anew
            except OSError as error:
                # A disk is full, or the results cannot be read or written.
                place = error.filename2 or error.filename or staging  # of a copy, where it was to go
                raise UserError(f"Nothing was published: {place}: {error.strerror or error}.") from error
            megabytes = bundle.size_bytes / _MEGABYTE
            files = f"{bundle.name}: {len(bundle.files)} files, {megabytes:.1f} MB"
            console.print(f"publish  {files}, sha256 {bundle.weights.sha256}", soft_wrap=True, markup=False)
            if dry_run:
                return self._show(bundle, console)
            for target in self.targets:
                try:
                    receipt = self._publish_to(target, bundle, console, again=again)
                except PublishError as error:
                    failed.append(target)
                    console.print(f"failed   {target.text}: {error}", soft_wrap=True, markup=False)
                else:
                    how = "is there already" if receipt.existed else "is there"
                    console.print(f"done     {target.text}: {how}: {receipt.uri}", soft_wrap=True, markup=False)
        if failed:
            console.print(f"again    {self.command(failed, again=again)}", soft_wrap=True, markup=False)
        return EXIT_NOT_PUBLISHED if failed else 0

    def preview(self, console: Console) -> None:
        """Say what a search would send where when it has ended; its best model is not known yet."""
        what = "the best model as .pth and .safetensors, a model card and manifest.json"
        console.print(f"publish  at the end {what}", soft_wrap=True, markup=False)
        self._print_targets("<model>-epchs-<n>-bs-<n>-lr-<x>", console)

    def put_off(self, console: Console) -> None:
        """Say that a search which was stopped is not published, and how it can be."""
        line = f"Not published, since a better trial may come. As it is: {self.command(self.targets)}"
        console.print(line, soft_wrap=True, markup=False)

    def command(self, targets: Sequence[Target], *, again: bool = False) -> str:
        """The command line that publishes to `targets`; keys come from the environment and are not in it."""
        words = ["python", "-m", "tune_cifar.publish", str(self.options.search)]
        for target in targets:
            words += ["--to", target.text]
        flags = {
            "--gradient-project": self.options.gradient_project,
            "--storage-provider": self.options.storage_provider,
            "--wandb-registry": self.options.wandb_registry,
        }
        for flag, value in flags.items():
            words += [flag, value] if value else []
        return shlex.join(words + (["--again"] if again else []))

    def _publish_to(self, target: Target, bundle: Bundle, console: Console, *, again: bool) -> Receipt:
        folder = self.options.search
        sha256 = bundle.weights.sha256
        earlier = [entry for entry in read_published(folder) if (entry.target, entry.sha256) == (target.text, sha256)]

        def say(line: str) -> None:
            console.print(f"         {target.text}: {line}", soft_wrap=True, markup=False)

        try:
            receipt = target.publish(bundle, again=again, recorded=earlier[-1] if earlier else None, say=say)
        except (PublishError, UserError):
            raise
        except Exception as error:
            # The other targets must still get the model, whatever this one's client came up with.
            raise PublishError(f"{type(error).__name__}: {error}") from error
        model = PublishedModel(target.text, bundle.name, receipt.uri, sha256, now_utc(), receipt.id)
        if not (receipt.existed and any(entry.id == receipt.id for entry in earlier)):
            try:
                add_published(folder, model)
            except OSError as error:
                written = f"{folder / PUBLISHED_FILE} could not be written: {error.strerror or error}"
                raise PublishError(f"the model is there, {receipt.uri}, but {written}") from error
        return receipt

    def _show(self, bundle: Bundle, console: Console) -> int:
        for file in bundle.files:
            console.print(f"         {file.name}  {file.size_bytes / _MEGABYTE:.2f} MB", soft_wrap=True, markup=False)
        self._print_targets(bundle.name, console)
        console.print("Nothing was sent: --dry-run.")
        return 0

    def _print_targets(self, name: str, console: Console) -> None:
        for target in self.targets:
            line = f"would    {scrub(target.text)}: {target.describe(name)}"
            console.print(line, soft_wrap=True, markup=False)
