"""Damaged and hostile folders of images: each is loaded whole, or told in one message, in bounded time and memory."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fuzz.mutations import damaged_bytes
from tests.fuzz.outcomes import cases, check_message, outcome, within_time
from tune_cifar import train
from tune_cifar.errors import UserError
from tune_cifar.trial.data import load_dataset


def image_bytes(suffix: str = "png", size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    """One image of noise."""
    pixels = np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, suffix)
    return stream.getvalue()


PNG, JPEG = image_bytes("png"), image_bytes("jpeg")


def load(folder: Path) -> str | None:
    """What a user is told of the folder, None where it is loaded whole; fails for anything else."""
    with within_time(folder):
        try:
            data = load_dataset(str(folder))
        except UserError as error:
            check_message(str(error), folder)
            return str(error)
    for part in (data.train, data.validation, data.test):
        assert part.images.shape == (len(part), 32, 32, 3)
        assert part.images.dtype == np.uint8
        assert set(part.labels.tolist()) <= set(range(len(data.class_names)))
    return None


def table(num_rows: int = 8, **columns: Any) -> pa.Table:
    """Rows as Hugging Face has them, with other or more columns; None leaves one out."""
    usual = {"img": [{"bytes": PNG, "path": None}] * num_rows, "label": [row % 2 for row in range(num_rows)]}
    return pa.table({name: column for name, column in {**usual, **columns}.items() if column is not None})


def write_parquet(folder: Path, train_table: pa.Table, test_table: pa.Table | None = None) -> Path:
    """A folder of two files."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(train_table, folder / "train.parquet")
    pq.write_table(table() if test_table is None else test_table, folder / "test.parquet")
    return folder


def write_classes(folder: Path, num_images: int = 3, content: bytes = PNG) -> Path:
    """A folder with train/CLASS and test/CLASS."""
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for row in range(num_images):
                (folder / part / name / f"{row}.png").write_bytes(content)
    return folder


def test_damaged_parquet_files(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "data", table())
    whole = (folder / "train.parquet").read_bytes()
    verdicts = []
    for random in cases(150):
        # The end of the file, which describes it, is where damage does most.
        content = damaged_bytes(random, whole)
        if random.random() < 0.5:
            place = len(whole) - random.randint(1, min(900, len(whole)))
            content = whole[:place] + random.randbytes(2) + whole[place + 2 :]
        (folder / "train.parquet").write_bytes(content)
        verdicts.append(load(folder) is None)
    assert sum(verdicts) < len(verdicts)


@pytest.mark.parametrize("content", [PNG, JPEG, image_bytes("gif"), image_bytes("tiff"), image_bytes("webp")], ids=len)
def test_damaged_images(tmp_path: Path, content: bytes) -> None:
    folder = write_classes(tmp_path / "data")
    verdicts = []
    for random in cases(40):
        (folder / "train" / "cat" / "0.png").write_bytes(damaged_bytes(random, content))
        verdicts.append(load(folder) is None)
    assert sum(verdicts) < len(verdicts)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is of that size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + chunk(b"IEND", b"")


CELL = {"bytes": PNG, "path": None}
LONG = list(range(8))
TABLES: dict[str, tuple[Callable[[], pa.Table], str]] = {
    "no column": (lambda: table(img=None), "it must have one column with images"),
    "no label": (lambda: table(label=None), "it must have one column `label`"),
    "labels as text": (lambda: table(label=["cat"] * 8), "column `label` must be of an integer type, it is string"),
    "labels as floats": (lambda: table(label=[0.5] * 8), "must be of an integer type, it is double"),
    "null label": (lambda: table(label=[0, None, 1, 0, 1, 0, 1, 0]), "row 1 .*the label is missing"),
    "negative label": (lambda: table(label=[0, -1, 1, 0, 1, 0, 1, 0]), "row 1 .*must be from 0 to .*, got -1"),
    "label out of range": (lambda: table(label=[0, 1, 9, 0, 1, 0, 1, 0]), "so the label must be from 0 to 2, got 9"),
    "largest label": (lambda: table(label=[2**63 - 1] * 8), "the label must be from 0 to"),
    "unsigned label": (lambda: table(label=pa.array([2**64 - 1] * 8, pa.uint64())), "."),
    "images as text": (lambda: table(img=["a"] * 8), "column `img` must be of type struct"),
    "null image": (lambda: table(img=[CELL, None] * 4), "row 1 .*bytes are missing"),
    "null bytes": (lambda: table(img=[CELL, {"bytes": None, "path": "a"}] * 4), "row 1 .*bytes are missing"),
    "no bytes": (lambda: table(img=[CELL, {"bytes": b"", "path": None}] * 4), "row 1 .*does not decode"),
    "two image columns": (lambda: table(image=[CELL] * 8), "it must have one column with images"),
    "no rows": (lambda: table().slice(0, 0), "there are no training images"),
    "one class": (lambda: table(label=[0] * 8), "."),
    "one image a class": (lambda: table(label=LONG), "each class needs at least 2 training images"),
    "64x64": (
        lambda: table(img=[{"bytes": image_bytes(size=(64, 64)), "path": None}] * 8),
        "must be 32x32 pixels, it is 64x64",
    ),
    "a bomb": (lambda: table(img=[{"bytes": png_claiming(60_000, 60_000), "path": None}] * 8), "size far above 32x32"),
    "a large image": (lambda: table(img=[{"bytes": png_claiming(9_000, 9_000), "path": None}] * 8), "it is 9000x9000"),
    "too much in a small one": (lambda: table(img=[{"bytes": png_claiming(32, 32), "path": None}] * 8), ""),
    "16 bits": (lambda: table(img=[{"bytes": image_bytes(mode="I;16"), "path": None}] * 8), "pixels of mode I;16"),
    "grey": (lambda: table(img=[{"bytes": image_bytes(mode="L"), "path": None}] * 8), ""),
    "with alpha": (lambda: table(img=[{"bytes": image_bytes(mode="RGBA"), "path": None}] * 8), ""),
    "for print": (lambda: table(img=[{"bytes": image_bytes("jpeg", mode="CMYK"), "path": None}] * 8), ""),
    "paths that lead elsewhere": (lambda: table(img=[{"bytes": PNG, "path": "../../etc/passwd"}] * 8), ""),
    "broken names": (lambda: table().replace_schema_metadata({"huggingface": b'{"info": ['}), ""),
    "names of another type": (lambda: table().replace_schema_metadata({"huggingface": b'{"info": 3}'}), ""),
    "deep metadata": (lambda: table().replace_schema_metadata({"huggingface": b"[" * 200_000}), ""),
    "same names": (
        lambda: table().replace_schema_metadata(
            {"huggingface": b'{"info": {"features": {"label": {"names": ["a", "a"]}}}}'}
        ),
        "two classes have the same name",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_odd_content(tmp_path: Path, name: str) -> None:
    make, told = TABLES[name]
    message = load(write_parquet(tmp_path / "data", make(), make() if name == "one class" else None))
    if told:
        assert message is not None
        assert re.search(told, message), message
    else:
        assert message is None


def test_a_million_rows_that_are_none_are_refused_early(tmp_path: Path) -> None:
    """A small file can hold any number of the same row: nothing is reserved before its images are seen."""
    cells = pa.array([{"bytes": b"x", "path": None}])
    images = cells.take(pa.array(np.zeros(1_000_000, dtype=np.int32)))
    folder = write_parquet(tmp_path / "data", pa.table({"img": images, "label": np.zeros(1_000_000, dtype=np.int8)}))
    assert "row 0" in (load(folder) or "")


def _loop(folder: Path) -> None:
    (folder / "train" / "cat" / "loop.png").symlink_to("loop.png")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "train" / "cat" / "pipe.png")


def _device(folder: Path) -> None:
    (folder / "train" / "cat" / "zero.png").symlink_to("/dev/zero")


def _folder(folder: Path) -> None:
    (folder / "train" / "cat" / "folder.png").mkdir()


def _text(folder: Path) -> None:
    (folder / "train" / "cat" / "notes.txt").write_text("none")
    (folder / "train" / "cat" / "fake.png").write_text("none")


def _nowhere(folder: Path) -> None:
    (folder / "test" / "dog" / "gone.png").symlink_to("nowhere")


def _cycle(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "ant").symlink_to("..")


def _strange(folder: Path) -> None:
    for part in ("train", "test"):
        for name in (b"\xff\xfe", "\u202egod\n".encode(), "a\u0301".encode()):
            of_class = folder / part / os.fsdecode(name)
            of_class.mkdir()
            for row in range(2):
                (of_class / f"{row}.png").write_bytes(PNG)


def _single(folder: Path) -> None:
    for row in (1, 2):
        (folder / "train" / "cat" / f"{row}.png").unlink()


def _none(folder: Path) -> None:
    for row in range(3):
        (folder / "train" / "cat" / f"{row}.png").unlink()


FOLDERS: Sequence[tuple[Callable[[Path], None], bool]] = (
    *((change, False) for change in (_loop, _pipe, _device, _folder, _text, _nowhere, _cycle, _single, _none)),
    (_strange, True),
)


@pytest.mark.parametrize(("change", "loads"), FOLDERS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.timeout(60)
def test_folders_of_classes_with_odd_entries(tmp_path: Path, change: Callable[[Path], None], loads: bool) -> None:
    folder = write_classes(tmp_path / "data")
    change(folder)
    assert (load(folder) is None) is loads


def _parquet_pipe(folder: Path) -> None:
    os.mkfifo(folder / "train-2.parquet")


def _parquet_folder(folder: Path) -> None:
    (folder / "train-2.parquet").mkdir()


def _parquet_empty(folder: Path) -> None:
    (folder / "train-2.parquet").write_bytes(b"")


def _parquet_gone(folder: Path) -> None:
    (folder / "train-2.parquet").symlink_to("nowhere")


@pytest.mark.parametrize("change", [_parquet_pipe, _parquet_folder, _parquet_empty, _parquet_gone])
@pytest.mark.timeout(60)
def test_folders_of_parquet_with_odd_entries(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = write_parquet(tmp_path / "data", table())
    change(folder)
    assert load(folder) is not None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "folder", "gone"])
def test_batches_of_cifar10_that_are_no_files(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    match kind:
        case "pipe":
            os.mkfifo(folder / "data_batch_1")
        case "folder":
            (folder / "data_batch_1").mkdir()
        case "gone":
            (folder / "data_batch_1").symlink_to("nowhere")
    assert "some files are not the official ones" in (load(folder) or "")


def test_damaged_data_through_the_command(tmp_path: Path) -> None:
    for place, source in enumerate(
        ["", " ", "/dev/null", "/dev/zero", "x" * 5000, "~nobody/x", "cifar11", "s3://b/c", "\udcff"]
    ):
        code, _ = outcome(train.main, ["--data", source])
        assert code == 2, (place, source)
    folder = write_classes(tmp_path / "data", content=PNG)
    for random in cases(10):
        (folder / "test" / "dog" / "0.png").write_bytes(damaged_bytes(random, PNG)[:40])
        assert outcome(train.main, ["--data", str(folder)])[0] == 2
