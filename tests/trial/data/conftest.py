"""Small datasets in every layout, made by the tests themselves."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tune_cifar.trial.data.cifar10 import Cifar10Release

EncodeImage = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode_image() -> EncodeImage:
    def encode(*, size: tuple[int, int] = (32, 32), mode: str = "RGB", suffix: str = "png", seed: int = 0) -> bytes:
        random = np.random.default_rng(seed)
        image = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
        stream = io.BytesIO()
        image.save(stream, suffix)
        return stream.getvalue()

    return encode


@dataclass(frozen=True)
class SmallRelease:
    """A release in CIFAR-10's format with 2 classes, 20 training images in 5 files and 6 test images."""

    folder: Path
    archive: Path
    release: Cifar10Release
    train_images: np.ndarray
    train_labels: list[int]


@pytest.fixture
def small_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRelease:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "made" / Cifar10Release.folder_name
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (26, 32, 32, 3), dtype=np.uint8)
    labels = [row % 2 for row in range(26)]
    rows = {f"data_batch_{part + 1}": slice(part * 4, part * 4 + 4) for part in range(5)}
    rows["test_batch"] = slice(20, 26)
    contents = {name: pickled_batch(images[part], labels[part]) for name, part in rows.items()}
    contents["batches.meta"] = b"\x80\x02}U\x0blabel_names](U\x03catU\x03doges."
    md5 = {}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        md5[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    archive = tmp_path / "made" / Cifar10Release.archive_name
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    release = Cifar10Release(
        url="http://127.0.0.1:9/nobody-listens",
        archive_md5=hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest(),
        train_md5={name: md5[name] for name in rows if name != "test_batch"},
        test_md5={"test_batch": md5["test_batch"]},
        names_md5={"batches.meta": md5["batches.meta"]},
    )
    return SmallRelease(folder, archive, release, images[:20], labels[:20])


def pickled_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """A batch with the opcodes of the official files: protocol 2 of Python 2 and numpy's old names."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), 3072).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        + b"(K\x01"
        + b"J" + struct.pack("<i", len(images)) + b"M\x00\x0c\x86"
        + b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89T" + struct.pack("<I", len(planes)) + planes + b"tb"
    )  # fmt: skip
    label_list = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x06labels" + label_list + b"U\x04data" + array + b"u."


@dataclass
class ArchiveServer:
    """A loopback server that sends `body` once `gate` is open and notes what it was asked for."""

    url: str
    body: bytes = b""
    status: int = 200
    requests: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def archive_server() -> Iterator[ArchiveServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer.requests.append(self.path)
            answer.gate.wait(timeout=60)
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answer = ArchiveServer(url=f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz")
    answer.gate.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield answer
    server.shutdown()
    thread.join()
    server.server_close()
