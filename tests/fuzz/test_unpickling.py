"""No file that the user was sent can run code: the rules that the source keeps, and files that try."""

from __future__ import annotations

import ast
import hashlib
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.commands import REPOSITORY
from tests.fuzz.outcomes import outcome
from tests.publish.conftest import NAME, write_search
from tune_cifar import evaluate, export, train
from tune_cifar.publish import __main__ as publish_command
from tune_cifar.publish.manifest import MANIFEST_FILE, parse_manifest, write_manifest
from tune_cifar.sweep.source import read_source
from tune_cifar.trial.checkpoint import load_weights

SOURCES = sorted((REPOSITORY / "tune_cifar").rglob("*.py"))
# What runs code that stands in a file or a text.
UNSAFE = {
    *("eval", "exec", "compile", "__import__"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open", "joblib.load", "dill.loads"),
    *("cloudpickle.load", "cloudpickle.loads", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("torch.jit.load", "torch.hub.load", "pd.read_pickle", "np.fromregex", "ray.cloudpickle.loads"),
}
ALLOWED = {
    # The official files, each after its checksum.
    ("trial/data/cifar10.py", "pickle.loads"),
    # What Ray on the same machine has written of a failed trial, into its own folder.
    ("runner/failures.py", "cloudpickle.loads"),
}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the package: the module, the name that is called as it is written, and the call."""
    for path in SOURCES:
        module = path.relative_to(REPOSITORY / "tune_cifar").as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield module, ast.unparse(node.func), node


def test_nothing_else_in_the_package_reads_code() -> None:
    found = {(module, name) for module, name, _ in calls() if name in UNSAFE}
    assert found - ALLOWED == set()


def test_modules_of_pickles_are_imported_by_few() -> None:
    importers = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib"} & {
                name.split(".")[0] for name in names
            }:
                importers.add(path.relative_to(REPOSITORY / "tune_cifar").as_posix())
    # checkpoint.py needs the class of torch's error alone.
    assert importers <= {"trial/data/cifar10.py", "trial/checkpoint.py"}


def test_every_load_of_torch_and_numpy_is_of_plain_values() -> None:
    loads = [(module, name, call) for module, name, call in calls() if name in ("torch.load", "np.load", "numpy.load")]
    assert {module for module, name, _ in loads if name == "torch.load"} == {"trial/checkpoint.py"}
    for module, name, call in loads:
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", (module, call.lineno)
        else:
            assert keywords.get("allow_pickle", "False") == "False", (module, call.lineno)


class Payload:
    """What runs `Path.touch` where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def payloads(trace: Path) -> dict[str, bytes]:
    """Files of weights that would leave `trace`: in each form that torch.load reads, and as what other readers take."""
    archive = io.BytesIO()
    torch.save({"layer.weight": Payload(trace)}, archive)
    legacy = io.BytesIO()
    torch.save({"layer.weight": Payload(trace)}, legacy, _use_new_zipfile_serialization=False)
    array = io.BytesIO()
    np.save(array, np.array([Payload(trace)], dtype=object), allow_pickle=True)
    return {
        "archive": archive.getvalue(),
        "legacy": legacy.getvalue(),
        "pickle": pickle.dumps(Payload(trace), protocol=2),
        "newest pickle": pickle.dumps({"a": Payload(trace)}),
        "array": array.getvalue(),
    }


def zip_of(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with `entries`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def hostile_weights() -> dict[str, bytes]:
    """Files that are no weights, or that ask for far more memory than they have bytes."""
    small = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, small)
    large = io.BytesIO()
    torch.save({"a": torch.zeros(30_000_000, dtype=torch.uint8)}, large)
    with zipfile.ZipFile(large) as archive:
        bomb = zip_of({name: archive.read(name) for name in archive.namelist()}, zipfile.ZIP_DEFLATED)
    other = {
        "none": None,
        "list": [1],
        "number": 3,
        "nested": {"a": {"b": torch.zeros(1)}},
        "keys": {1: torch.zeros(1)},
    }
    saved = {}
    for name, value in other.items():
        stream = io.BytesIO()
        torch.save(value, stream)
        saved[name] = stream.getvalue()
    return {
        "bomb": bomb,
        "cut": small.getvalue()[:-30],
        "start": small.getvalue()[:100],
        "empty archive": zip_of({}),
        "other archive": zip_of({"a/b.txt": b"text"}),
        "archive of nothing": zip_of({"model/data.pkl": b"", "model/version": b"3"}),
        "huge bytearray": pickle_of(b"c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."),
        **saved,
    }


def pickle_of(tail: bytes) -> bytes:
    """A file of torch.save's archive form whose pickle is `tail`."""
    return zip_of({"m/data.pkl": b"\x80\x02" + tail, "m/version": b"3\n", "m/byteorder": b"little"})


@pytest.mark.parametrize("form", ["archive", "legacy", "pickle", "newest pickle", "array"])
def test_no_command_runs_what_weights_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    trace = tmp_path / "executed"
    content = payloads(trace)[form]
    loose = tmp_path / f"{NAME}.pth"
    loose.write_bytes(content)
    folder = with_weights(tmp_path / "results" / "bad", content)
    for path in (str(loose), str(folder)):
        _, output = outcome(evaluate.main, [path, "--data", "digits"], allowed=(2,))
        assert "weights_only" not in output
    outcome(export.main, [str(folder), "onnx"], allowed=(2,))
    for flags in ([], ["--dry-run"]):
        outcome(publish_command.main, [str(folder), "--to", "models/", *flags], allowed=(2,))
    assert not (tmp_path / "models").exists()
    for suffix in (".safetensors", ".bin"):
        loose.with_suffix(suffix).write_bytes(content)
        outcome(evaluate.main, [str(loose.with_suffix(suffix)), "--data", "digits"], allowed=(2,))
    assert not trace.exists()


def with_weights(folder: Path, content: bytes) -> Path:
    """A search whose best model is `content`, with a manifest that vouches for it."""
    write_search(folder, {"layer.weight": torch.zeros(1)})
    best = folder / "best"
    (best / f"{NAME}.pth").write_bytes(content)
    manifest = parse_manifest((best / MANIFEST_FILE).read_text(), "here")
    changes = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    write_manifest(type(manifest)(**{**vars(manifest), **changes}), best)
    return folder


@pytest.mark.parametrize("name", sorted(hostile_weights()))
def test_files_that_are_no_weights_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{NAME}.pth"
    path.write_bytes(hostile_weights()[name])
    with pytest.raises(ValueError, match=r"\w"):
        load_weights(path)
    outcome(evaluate.main, [str(path), "--data", "digits"], allowed=(2,))
    outcome(
        publish_command.main, [str(with_weights(tmp_path / "bad", path.read_bytes())), "--to", f"{tmp_path}/m/"], (2,)
    )


def test_a_bomb_is_told_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    path.write_bytes(hostile_weights()["bomb"])
    with pytest.raises(ValueError, match=r"its [\d,]+ bytes unpack to 30,0[\d,]+, which torch.save never does"):
        load_weights(path)


def test_files_of_older_versions_of_torch_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_weights(tmp_path / "old.pth")["a"].tolist() == [0, 1, 2]


def test_a_pickle_in_place_of_cifar10_is_never_read(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Payload(trace)))
    for source in (folder, folder.parent):
        _, output = outcome(train.main, ["--data", str(source)], allowed=(2,))
        assert "some files are not the official ones" in output
        assert output.count("corrupt, its md5 is") == 7
    assert not trace.exists()


def test_a_tag_of_python_is_never_followed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    path = tmp_path / "sweep.yaml"
    document = {"method": "random", "parameters": {"lr": {"value": Payload(trace)}}}
    path.write_text(yaml.dump(document))
    assert "!!python" in path.read_text()
    source = read_source(path)
    assert [problem.text.partition(",")[0] for problem in source.problems] != []
    assert not trace.exists()
