"""W&B's engine as a method under test: a process of its own, started once and asked by lines of JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.search_simulator import End
from tune_cifar.errors import UserError

SERVER = Path(__file__).with_name("wandb_engine.py")
PACKAGES = ("sweeps==0.3.0", "numpy<2")  # the engine does not work with a newer numpy


class EngineProcess:
    """The running engine; one search at a time."""

    def __init__(self) -> None:
        uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
        if uv is None:
            raise UserError("W&B's engine needs uv, to run in an environment of its own. Install uv.")
        error = ""
        for offline in (["--offline"], []):  # from uv's cache, where it can be
            self._process = _start([uv, "run", *offline])
            if cast("IO[str]", self._process.stdout).readline().strip() == '"ready"':
                return
            self._process.kill()
            error = self._process.communicate()[1].strip() or error
        raise UserError(f"W&B's engine does not start. Leave its methods out with --methods. uv says:\n{error}")

    def ask(self, **request: Any) -> Any:
        """Send one request and wait for its answer."""
        requests, answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        requests.write(json.dumps(request) + "\n")
        requests.flush()
        answer = answers.readline()
        if not answer:
            raise RuntimeError(f"W&B's engine has ended:\n{self._process.communicate()[1]}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _start(command: list[str]) -> subprocess.Popen[str]:
    python = "3.12" if sys.version_info >= (3, 13) else f"3.{sys.version_info.minor}"  # numpy<2 ends there
    packages = [word for package in PACKAGES for word in ("--with", package)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PYTHON", "VIRTUAL"))}
    return subprocess.Popen(
        [*command, "--no-project", "--quiet", "--python", python, *packages, "python", str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**inherited, "UV_NO_CONFIG": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


@cache
def shared_engine() -> EngineProcess:
    """The engine of this process; it ends with it, when its standard input closes."""
    return EngineProcess()


class WandbSearcher:
    """One search of W&B's engine with a sweep file of `method: bayes` or `random`."""

    def __init__(self, document: Mapping[str, Any], seed: int, engine: EngineProcess | None = None) -> None:
        self.engine = engine or shared_engine()
        self.engine.ask(do="start", document=document, seed=seed)

    def suggest(self, number: int) -> Mapping[str, Any]:
        """The engine's next config."""
        config: Mapping[str, Any] = self.engine.ask(do="suggest")
        return config

    def observe(self, number: int, losses: Sequence[float], end: End) -> None:
        """Tell the engine how a run ended."""
        self.engine.ask(do="observe", number=number, losses=list(losses), end=end)
