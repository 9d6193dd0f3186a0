"""Reads weights in the forms in which they come back: .pth, .safetensors, and either in the form of Gradient's SDK."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from torch import Tensor

from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import check_safetensors
from tune_cifar.trial.checkpoint import load_weights

MODEL_SUFFIXES = (".pth", ".safetensors")

# A multipart form of one part (https://www.rfc-editor.org/rfc/rfc7578): a boundary, headers, an empty line, the file.
_FORM = re.compile(rb"--([\w'()+,./:=?-]{1,70})\r\n((?:[^\r\n]{1,2000}\r\n){1,9})\r\n")
_FILE_NAME = re.compile(rb'filename="([^"\r\n]+)"')
_LONGEST_HEAD_BYTES = 20_000


def load_model_file(path: Path) -> dict[str, Tensor]:
    """The weights in a .pth or .safetensors file; neither can run code. Raises `ValueError` where it holds none."""
    if path.suffix != ".safetensors":
        return load_weights(path)
    check_safetensors()
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        # SafetensorError of a broken header, KeyError of a type that torch does not have, OSError of an empty file …
        raise ValueError(str(error) or type(error).__name__) from None


def is_form(path: Path) -> bool:
    """Whether `path` starts as a multipart form, which no file of weights does.

    The SDK (gradient 2.99.4, `S3PutFileUploader`) sends such a form to an address that stores whatever it gets, so
    a model that it uploaded comes back within the form.
    """
    with path.open("rb") as file:
        return _FORM.match(file.read(_LONGEST_HEAD_BYTES)) is not None


def unwrap_form(path: Path, folder: Path) -> Path:
    """Write the file within the form `path` into `folder`, another one; raises `UserError` when its end is missing."""
    with path.open("rb") as file:
        head = _FORM.match(file.read(_LONGEST_HEAD_BYTES))
        if head is None:
            raise UserError(f"{path} is no multipart form.")
        end = b"\r\n--" + head[1] + b"--"
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            stop = content.rfind(end)
            if stop < head.end() or content[stop + len(end) :].strip():
                raise UserError(f"{path} starts as an upload of Paperspace's SDK and has no end: download it again.")
            target = folder / _name_in(head[2], path)
            target.write_bytes(content[head.end() : stop])
    return target


def _name_in(headers: bytes, path: Path) -> str:
    """The file's own name where the form has one that says what it is; the SDK writes the whole path."""
    found = _FILE_NAME.search(headers)
    name = Path(found[1].decode(errors="replace")).name if found else ""
    return name if name.endswith(MODEL_SUFFIXES) else path.name
