"""Several machines inside this one, each with its own network, processes and login, to try a cluster for real.

    with hosts(tmp_path, "laptop", "head", "worker") as machines:
        machines["laptop"].run("ssh head hostname").stdout     # all of them log in to each other by name
        machines["head"].run("cd ~/tune_cifar && make setup")  # nearly free: the environment is this checkout's
        machines["worker"].set_link(up=False)                  # the cable is pulled

A host is a process tree in namespaces of its own (network, processes, mounts, host name, shared memory) with an sshd
at 10.77.0.1, .2, … on a bridge that is in a namespace too. Nothing of it can be reached from this machine's own
network, and no host sees a process of this machine or of another host: `ray stop` in one of them, which ends every Ray
that it can see, is safe. So what is to reach a host runs in a host, such as "laptop" above.

The user is root with HOME /home/ray: a folder of the host's own, which the test finds as `host.home`. /tmp, /run and
/dev/shm are its own and empty; everything else is this machine's, the checkout read-only at its own path.
`~/tune_cifar/.venv` is the checkout's environment, read-only. With `shared`, that folder is `~/shared` on every host.

It needs root and Linux; `why_no_hosts()` says what is missing. Everything ends with the block, and also when the test's
process is killed: the hosts die with it, and the kernel removes their networks and mounts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.commands import REPOSITORY

HOME = "/home/ray"
SWITCH = "10.77.0.254"
START_SECONDS = 60
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")

_PROGRAMS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "rsync": "rsync",
}

# The first process of a host. It stays to collect the processes that others leave to it, as init does.
_INIT = """
set -eu
exec 7<"$FOLDER" 8<"$CHECKOUT" 9<"$SHARED"
for place in /tmp /run /dev/shm /home; do mount -t tmpfs -o size=4g tmpfs "$place"; done
chmod 1777 /tmp /dev/shm
chmod 755 /run /home
mkdir -p /run/sshd /run/host "$HOME" "$CHECKOUT"
mount --no-canonicalize --bind /proc/self/fd/7 /run/host
mount --no-canonicalize --bind /proc/self/fd/8 "$CHECKOUT"
mount -o remount,bind,ro "$CHECKOUT"
mount --bind /run/host/home "$HOME"
mkdir -p "$HOME/shared" "$HOME/tune_cifar/.venv"
mount --no-canonicalize --bind /proc/self/fd/9 "$HOME/shared"
mount --bind "$CHECKOUT/.venv" "$HOME/tune_cifar/.venv"
mount -o remount,bind,ro "$HOME/tune_cifar/.venv"
touch /run/environment-ready  # nothing to install, whatever was edited since `make setup`
mount --bind /run/environment-ready "$HOME/tune_cifar/.venv/ready"
mount --bind /run/host/hosts /etc/hosts
mount --bind /run/host/passwd /etc/passwd
hostname "$NAME"
ip link set lo up
exec 7<&- 8<&- 9<&-
"$SSHD" -f /run/host/sshd_config -E /run/host/sshd.log
touch /run/host/ready
while :; do sleep 3600 & wait $!; done
"""

_SSHD_CONFIG = """
HostKey /run/host/host_key
AuthorizedKeysFile /run/host/authorized_keys
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PrintMotd no
MaxStartups 100
Subsystem sftp internal-sftp
"""


def why_no_hosts() -> str | None:
    """Why there can be no hosts on this machine, naming the package that is missing; None if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts made of namespaces need root on Linux"
    for program, package in _PROGRAMS.items():
        if _program(program) is None:
            return f"needs {program}: install the package {package}"
    if not (REPOSITORY / ".venv" / "ready").exists():
        return f"needs the environment that `make setup` makes in {REPOSITORY}"
    trial = subprocess.run(["unshare", *_NAMESPACES, "--fork", "true"], capture_output=True, text=True, check=False)
    return f"this machine allows no namespaces: {trial.stderr.strip()}" if trial.returncode else None


@dataclass(frozen=True)
class Host:
    """One machine: `address` on the bridge, `home` as seen from outside, `init` the id of its first process."""

    name: str
    address: str
    home: Path
    init: int
    switch: int

    def command(self, script: str, **environment: str) -> list[str]:
        """The command line that runs the bash `script` on the host, in its home, as after a login."""
        settings = {
            "HOME": HOME,
            "USER": "root",
            "LANG": "C.UTF-8",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            **environment,
        }
        # A suite that was started in the background ignores Ctrl-C, which a program on a host must not inherit.
        inside = [
            "env",
            "-i",
            "--default-signal=HUP,INT,QUIT",
            *(f"{name}={value}" for name, value in settings.items()),
        ]
        enter = ["nsenter", "--target", str(self.init), *_NAMESPACES]
        return [*enter, *inside, "bash", "--login", "-c", f"cd\n{script}"]

    def run(self, script: str, *, seconds: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the bash `script` on the host to its end, for at most `seconds`."""
        return subprocess.run(
            self.command(script, **environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def start(self, script: str, output: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start the bash `script` on the host, with all that it prints in the file `output`.

        The process returned is `nsenter`, which ends when the script does and as it does; `send` reaches the script.
        """
        with output.open("wb") as file:
            return subprocess.Popen(
                self.command(f"exec {script}", **environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def send(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Send a signal to the script that `start` started."""
        os.kill(_child(process.pid), number)

    def processes(self) -> list[str]:
        """The command lines of what runs on the host, but for its first process, its sshd and this question."""
        rows = self.run("ps -e -ww -o pid=,args=").stdout.splitlines()
        own = ("sleep 3600", "sshd: ", "ps -e -ww", "bash --login -c cd\nps")
        found = [row.split(maxsplit=1) for row in rows]
        return [args for pid, args in found if pid != "1" and not args.startswith(own) and "ps -e -ww" not in args]

    def set_link(self, *, up: bool) -> None:
        """Plug the host's network cable in, or pull it."""
        state = "up" if up else "down"
        _in_network(self.switch, "ip", "link", "set", f"to-{self.init}", state)


@contextlib.contextmanager
def hosts(folder: Path, *names: str, shared: Path | None = None) -> Iterator[dict[str, Host]]:
    """Hosts with these names, of at most 60 characters, on one network; `folder` holds their homes and logs."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(key))
    addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, start=1)}
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(_namespaces({}, "--net", script="ip link set lo up; sleep infinity & wait"))
        _in_network(switch, "ip", "link", "add", "bridge", "type", "bridge")
        _in_network(switch, "ip", "address", "add", f"{SWITCH}/24", "dev", "bridge")
        _in_network(switch, "ip", "link", "set", "bridge", "up")
        machines = {}
        for name in names:
            place = _furnish(folder / name, addresses, key)
            settings = {
                "FOLDER": str(place),
                "CHECKOUT": str(REPOSITORY),
                "SHARED": str(shared or _made(place / "not-shared")),
                "SSHD": str(_program("sshd")),
                "NAME": name,
                "HOME": HOME,
            }
            init = stack.enter_context(_namespaces(settings, *_NAMESPACES[:-1], script=_INIT))
            _plug_in(switch, init, addresses[name])
            machines[name] = Host(name, addresses[name], place / "home", init, switch)
        for host in machines.values():
            _wait_for_start(folder / host.name)
        yield machines


def _furnish(place: Path, addresses: dict[str, str], key: Path) -> Path:
    """Write a host's files: its home with the key that opens all hosts, its sshd's settings, and everybody's name."""
    home = place / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh").chmod(0o700)
    shutil.copy(key, home / ".ssh" / "id_ed25519")
    (home / ".ssh" / "config").write_text("StrictHostKeyChecking accept-new\nLogLevel ERROR\n")
    profile = f'export PATH="{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:$PATH"\n'
    profile += "export RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0\n"
    for file in (".profile", ".bashrc"):
        (home / file).write_text(profile)
    shutil.copy(key.with_suffix(".pub"), place / "authorized_keys")
    (place / "authorized_keys").chmod(0o600)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "host_key"))
    (place / "sshd_config").write_text(_SSHD_CONFIG)
    names = "".join(f"{address} {name}\n" for name, address in addresses.items())
    (place / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
    others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
    (place / "passwd").write_text("\n".join([f"root:x:0:0:root:{HOME}:/bin/bash", *others, ""]))
    return place.resolve()


@contextlib.contextmanager
def _namespaces(settings: dict[str, str], *kinds: str, script: str) -> Iterator[int]:
    """Run the bash `script` as the first process of new namespaces; gives its id, and kills all in them at the end."""
    # Each dies with the one before it, even if that one is killed: this process, then unshare, then the script.
    die_with_parent = ["setpriv", "--pdeathsig", "KILL"]
    unshare = ["unshare", *kinds, "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = subprocess.Popen(
        [*die_with_parent, *unshare, "bash", "-c", script],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **settings},
        stdin=subprocess.DEVNULL,
    )
    init = None
    try:
        init = _child(process.pid)
        yield init
    finally:
        if init is None:
            process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)
        process.wait()  # unshare ends when its child and all that runs with that has ended


def _plug_in(switch: int, init: int, address: str) -> None:
    """Join the host to the bridge by a pair of virtual network cards, its own named eth0."""
    _in_network(switch, "ip", "link", "add", f"to-{init}", "type", "veth", "peer", "name", "eth0", "netns", str(init))
    _in_network(switch, "ip", "link", "set", f"to-{init}", "master", "bridge", "up")
    _in_network(init, "ip", "address", "add", f"{address}/24", "dev", "eth0")
    _in_network(init, "ip", "link", "set", "eth0", "up")
    _in_network(init, "ip", "route", "add", "default", "via", SWITCH)


def _wait_for_start(place: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (place / "ready").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the host of {place} did not start within {START_SECONDS} s")
        time.sleep(0.05)


def _child(pid: int) -> int:
    """The id of the one child of a process, once it has one and that one is in its namespaces."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children and _name(int(children[0])) not in {"unshare", "nsenter"}:
            return int(children[0])
        time.sleep(0.02)
    raise TimeoutError(f"process {pid} started nothing within {START_SECONDS} s")


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _in_network(pid: int, *command: str) -> None:
    _run("nsenter", "--net", "--target", str(pid), *command)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
