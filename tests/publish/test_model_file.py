from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from tests.publish.conftest import NAME
from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.model_file import is_form, load_model_file, unwrap_form

BOUNDARY = "5d2b4e0b7ed44f7b9bd1b2e7a9f0c3d1"


def wrap(content: bytes, name: str) -> bytes:
    """`content` as the SDK stores it; test_gradient_target.py has one that the SDK itself made."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def _write(folder: Path, content: bytes, name: str = "downloaded.pth") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\r\n--\r\n", f"\r\n--{BOUNDARY}\r\nx".encode()], ids=str)
def test_what_is_within_a_form_is_taken_out_to_the_byte(tmp_path: Path, content: bytes) -> None:
    path = _write(tmp_path / "from", wrap(content, "/notebooks/results/ResNet18.pth"))
    assert is_form(path)
    target = unwrap_form(path, _write(tmp_path / "to", b"").parent)
    assert (target, target.read_bytes()) == (tmp_path / "to" / "ResNet18.pth", content)


@pytest.mark.parametrize("name", ["", "..", "notes.txt", "..\\..\\x.txt"])
def test_a_name_that_says_nothing_is_not_taken(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path, wrap(b"content", name))
    (tmp_path / "to").mkdir()
    assert unwrap_form(path, tmp_path / "to") == tmp_path / "to" / "downloaded.pth"


def test_files_of_weights_are_no_forms(bundle: Bundle, tmp_path: Path) -> None:
    assert [is_form(file.path) for file in bundle.files] == [False] * 4
    assert not is_form(_write(tmp_path, b""))
    assert not is_form(_write(tmp_path, b"--" * 40_000))


def test_a_form_without_its_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    for content in (wrap(b"content", "x.pth")[:-10], wrap(b"content", "x.pth") + b"more"):
        with pytest.raises(UserError, match="has no end: download it again"):
            unwrap_form(_write(tmp_path, content), tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_both_forms_hold_the_same_weights(bundle: Bundle) -> None:
    weights, tensors = (load_model_file(file.path) for file in bundle.files[:2])
    assert weights.keys() == tensors.keys()
    assert all(torch.equal(weights[name], tensors[name]) for name in weights)


def test_neither_reader_runs_code_or_takes_the_others_file(bundle: Bundle, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    for name in ("code.pth", "code.safetensors"):
        with pytest.raises(ValueError, match=r"pickled code|header"):
            load_model_file(_write(tmp_path, pickle.dumps(Code(), protocol=2), name))
    shutil.copyfile(bundle.weights.path, tmp_path / f"{NAME}.safetensors")
    with pytest.raises(ValueError, match=r"(?i)header"):
        load_model_file(tmp_path / f"{NAME}.safetensors")
    assert not (tmp_path / "executed").exists()
