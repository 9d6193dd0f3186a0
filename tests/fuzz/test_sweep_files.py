"""Damaged sweep files: each is a search that can be planned, or one message that names the file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import yaml

from tests.commands import REPOSITORY
from tests.fuzz.mutations import damaged_bytes, damaged_value
from tests.fuzz.outcomes import cases, check_message, outcome, within_time
from tune_cifar import search
from tune_cifar.errors import UserError
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.searcher import plan_search
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

EXAMPLES = [path.read_bytes() for path in sorted((REPOSITORY / "configs").glob("*.yaml"))]
VERDICTS = yaml.safe_load((REPOSITORY / "tests" / "sweep" / "cases" / "verdicts.yaml").read_text())
CASES = EXAMPLES + [case["file"].encode() for case in VERDICTS]


def read(path: Path, random: Random) -> str | None:
    """What a user is told of the file, None where it is a search that can be planned; fails for anything else."""
    with within_time(path.read_bytes()[:2000] if path.is_file() else path):
        try:
            config = load_sweep(path, check_parameter, EPOCH_METRICS)
            space = SearchSpace(config)
            plan = plan_search(config, space, num_trials=4, seed=random.randrange(100), trials_at_once=2)
        except UserError as error:
            check_message(str(error), path)
            return str(error)
    points = [space.from_quantiles([random.random() for _ in space.distributions]) for _ in range(3)]
    for point in [*points, *plan.start_points[:3]]:
        json.dumps(space.decode(point))
    space.rows()
    return None


def test_files_of_damaged_bytes(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    verdicts = []
    for random in cases(600):
        path.write_bytes(damaged_bytes(random, random.choice(CASES)))
        verdicts.append(read(path, random) is None)
    assert 0 < sum(verdicts) < len(verdicts)


def test_files_of_odd_values(tmp_path: Path) -> None:
    verdicts = []
    for random in cases(400):
        document = damaged_value(random, yaml.safe_load(random.choice(EXAMPLES)))
        path = tmp_path / random.choice(["sweep.yaml", "sweep.json"])
        dump = json.dumps if path.suffix == ".json" else yaml.safe_dump
        path.write_text(dump(document), encoding="utf-8")
        verdicts.append(read(path, random) is None)
    assert 0 < sum(verdicts) < len(verdicts)


def laughs(depth: int, width: int) -> str:
    """The billion laughs in YAML: a few lines that stand for width ** depth values."""
    lines = [f"a0: &a0 [{', '.join(['1'] * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    return "\n".join(lines)


VALID = "method: random\nparameters: {lr: {min: 0.1, max: 1.0}}\n"
HOSTILE: Sequence[bytes] = (
    b"",
    b"\n\n",
    b"# only a remark",
    b"\xef\xbb\xbf",
    b"\x00" * 1000,
    b"\xff\xfe" + VALID.encode("utf-16-le"),
    VALID.encode("utf-16"),
    VALID.encode("utf-32"),
    VALID.replace(" ", "\t").encode(),
    VALID.encode() + b"\xed\xa0\x80: 1\n",
    laughs(9, 9).encode(),
    laughs(30, 2).encode(),
    b"a: &a {b: *a}\nmethod: random\n",
    b"&a [*a]",
    b"a: &a {<<: *a}",
    b"<<: [*x]",
    b"<<: {<<: {<<: 3}}\nmethod: random",
    b"parameters: !!python/object/apply:os.system ['touch executed']\n",
    b"!!python/object/new:type {args: [z, !!python/tuple [], {}]}",
    b"method: !!python/name:os.system random",
    b"!!map [1]",
    b"!!omap [a: 1]",
    b"[" * 100_000,
    b"{a: " * 50_000,
    b"- " * 100_000,
    b"? " * 50_000,
    b"method: '" + b"x" * 200_000 + b"'",
    b"x" * 10_000_000,
    b"method: random\n" + b"x" * 1_000 + b": 1\n",
    b"? " + b"x" * 200_000 + b"\n: 1\nmethod: random\n",
    b"method: random\nparameters: {? " + b"x" * 200_000 + b"\n : {value: 1}}\n",
    b"method: random\nparameters: {? " + b"x" * 200_000 + b"\n : {? " + b"y" * 80_000 + b"\n : 1}}\n",
    b"method: *" + b"x" * 200_000,
    b"method: !" + b"x" * 200_000 + b" 1",
    b"method: !<" + b"x" * 200_000 + b"> 1",
    b"%TAG ! " + b"x" * 200_000,
    b"method: " + b"[" * 30 + b"1" * 200_000 + b"]" * 30,
    VALID.encode() + b"name: " + b"x" * 200_000,
    VALID.encode() + b"description: " + b"x" * 200_000,
    VALID.encode() + b"project: " + b"x" * 200_000 + b"\nentity: a/b",
    VALID.encode() + b'project: "a\\0b\\n"\nname: "\\e[31m"',
    VALID.encode() + b"metric: {name: " + b"x" * 200_000 + b"}",
    VALID.replace("0.1", "5" * 4_000).encode(),
    VALID.replace("0.1", "5" * 200_000).encode(),
    VALID.replace("0.1", "0x" + "5" * 200_000).encode(),
    VALID.replace("0.1", "1:" * 2_000 + "1").encode(),
    b"method: random\nmethod: random\n" * 1_000,
    b"parameters: {" + b",".join(b"p%d: {value: [1, 2]}" % i for i in range(1_500)) + b"}",
    b"method: grid\nparameters:\n" + b"".join(b"  p%d: {values: [1, 2, 3]}\n" % i for i in range(200)),
    VALID.encode() + b"run_cap: 1" + b"0" * 5_000,
    VALID.encode() + b"run_cap: 1e308",
    VALID.encode() + b"run_cap: 9007199254740992",
    VALID.encode() + b"metric: {name: val_loss, target: 190:20:30:40}",
    b"method: random\nparameters: {lr: {min: 2026-01-01, max: 2026-12-31}}",
    b"method: random\nparameters: {epochs: {values: [010, 0o10, 0x10, 0b1, 1_0]}}",
    b"method: bayes\nmetric: {name: val_loss}\nparameters: {epochs: {min: 1, max: 9007199254740992}}",
    b"method: bayes\nmetric: {name: val_loss}\nparameters: {epochs: {min: 1, max: 9007199254740993}}",
    b"method: random\nparameters: {lr: {distribution: q_uniform, min: 0, max: 1e300, q: 1e-300}}",
    b"method: grid\nparameters: {lr: {distribution: q_uniform, min: 1, max: 1e15, q: 1}}",
    b"method: grid\nparameters: {epochs: {min: 1, max: 9007199254740991}}",
)


@pytest.mark.parametrize("content", HOSTILE, ids=lambda content: repr(content[:40]))
def test_files_that_are_meant_to_hurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sweep.yaml"
    path.write_bytes(content)
    read(path, Random(0))
    outcome(search.main, [str(path), "--dry-run"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize(
    "kind", ["folder", "device", "pipe", "unreadable", "dangling", "loop", "missing", "long", "null"]
)
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sweep.yaml"
    match kind:
        case "folder":
            path.mkdir()
        case "device":
            path = Path("/dev/zero")
        case "pipe":
            os.mkfifo(path)
        case "unreadable":
            path.write_text(VALID)
            path.chmod(0)
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
        case "loop":
            path.symlink_to(path)
        case "long":
            path = tmp_path / ("x" * 300)
        case "null":
            path = tmp_path / "a\0b"
    for arguments in ([str(path), "--dry-run"], [str(path), "--dry-run", "--name", "a", "--resume"]):
        code, output = outcome(search.main, [*arguments, "--results", str(tmp_path / "results")])
        assert code == 2 or (kind == "unreadable" and os.geteuid() == 0 and "--resume" not in arguments), output


def test_damaged_files_through_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("sweep.yaml")
    codes = set()
    for random in cases(60):
        path.write_bytes(damaged_bytes(random, random.choice(EXAMPLES)))
        codes.add(outcome(search.main, [str(path), "--dry-run", "--results", "results", "--count", "3"])[0])
    assert codes == {0, 2}
