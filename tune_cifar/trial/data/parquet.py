"""Reads image datasets in Hugging Face's parquet files, in which datasets are mostly shared today."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tune_cifar.errors import UserError
from tune_cifar.trial.data.dataset import ImageSplit, SourceImages
from tune_cifar.trial.data.decoding import IMAGE_SIDE, decode_image
from tune_cifar.trial.data.parquet_schema import check_columns, stored_class_names

logger = logging.getLogger(__name__)

_BATCH_ROWS = 256  # encoded images held at once; decoded ones take 3 KiB each
_BUFFER_BYTES = 1 << 20  # read a row group piece by piece: some files have a single one


@dataclass(frozen=True, eq=False)
class _Rows:
    """One file: `images` uint8 [n, 32, 32, 3], `labels` int64 [n], `folders` [n] the last of each path."""

    path: Path
    class_names: tuple[str, ...] | None
    images: np.ndarray
    labels: np.ndarray
    folders: list[str]


def find_parquet_files(folder: Path) -> list[Path]:
    """Return the parquet files in `folder` or, where it has none, in the folders right below it."""
    return sorted(folder.glob("*.parquet")) or sorted(folder.glob("*/*.parquet"))


def load_parquet(folder: Path) -> SourceImages:
    """Read the files whose names start with `train` and `test`; each row has an image and a label.

    The image is in a column `img` or `image` of type struct {bytes, path}, the class in an integer column
    `label`. Class names come from the `huggingface` metadata, else from paths of the form `class/number.jpg`
    where each label has a class of its own, else they are the labels. Files of other names are left alone.
    Raises `UserError` with file and row for anything that does not fit.
    """
    files = find_parquet_files(folder)
    if len({path.parent for path in files}) > 1:
        folders = ", ".join(sorted({path.parent.name for path in files}))
        raise UserError(
            f"{folder}: parquet files lie in several folders ({folders}); name the one with "
            "both train*.parquet and test*.parquet."
        )
    train = _read_part(files, "train")
    test = _read_part(files, "test")
    class_names = _class_names(folder, train + test)
    _check_labels(train + test, class_names)
    return SourceImages(class_names, _joined(train), _joined(test))


def _read_part(files: list[Path], part: str) -> list[_Rows]:
    paths = [path for path in files if path.name.startswith(part)]
    if not paths:
        names = ", ".join(path.name for path in files[:5])
        raise UserError(f"{files[0].parent}: no parquet file's name starts with {part!r}; found: {names}.")
    return [_read_file(path) for path in paths]


def _read_file(path: Path) -> _Rows:
    images = [np.empty((0, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)]
    labels = [np.empty(0, dtype=np.int64)]
    folders: list[str] = []
    if path.exists() and not path.is_file():  # of a pipe, opening it would wait for ever
        raise UserError(f"{path}: it has the name of a parquet file and is no file. Move it away.")
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            schema = file.schema_arrow
            image_column = check_columns(path, schema)
            first_row = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[image_column, "label"]):
                cells = batch.column(image_column)
                images.append(_decoded(path, first_row, pc.struct_field(cells, "bytes")))
                labels.append(_labels(path, first_row, batch.column("label")))
                folders += _folders(cells)
                first_row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: cannot be read as parquet: {reason}") from error
    return _Rows(path, stored_class_names(schema), np.concatenate(images), np.concatenate(labels), folders)


def _decoded(path: Path, first_row: int, blobs: pa.Array) -> np.ndarray:
    # One thread: an image takes 65 µs, most of it pillow's Python code, which holds the interpreter lock. Two
    # threads on two cores need 1.7 times as long as one, measured on 20,000 of CIFAR-10's images as JPEG.
    images = np.empty((len(blobs), IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    for row, blob in enumerate(blobs):
        place = f"{path}, row {first_row + row} (the first is 0)"
        if not blob.is_valid:
            raise UserError(f"{place}: the image's bytes are missing (null).")
        images[row] = decode_image(io.BytesIO(blob.as_buffer()), place)
    return images


def _labels(path: Path, first_row: int, labels: pa.Array) -> np.ndarray:
    if labels.null_count:
        row = first_row + pc.index(pc.is_null(labels), True).as_py()
        raise UserError(f"{path}, row {row} (the first is 0): the label is missing (null).")
    integers: np.ndarray = labels.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return integers


def _folders(cells: pa.Array) -> Iterator[str]:
    """Yield for each row the last folder of its path, "" where it has none."""
    stored = cells.type.field("path").type if cells.type.get_field_index("path") >= 0 else pa.null()
    if not (pa.types.is_string(stored) or pa.types.is_large_string(stored)):
        yield from [""] * len(cells)
        return
    # As bytes: a path need not be valid UTF-8.
    for path in pc.struct_field(cells, "path").cast(pa.large_binary()).to_pylist():
        yield (path or b"").rpartition(b"/")[0].rpartition(b"/")[2].decode("utf-8", "replace")


def _class_names(folder: Path, parts: list[_Rows]) -> tuple[str, ...]:
    named = {rows.class_names: rows.path.name for rows in parts if rows.class_names}
    if len(named) > 1:
        raise UserError(f"{folder}: the metadata of these files name different classes: {', '.join(named.values())}.")
    if named:
        return next(iter(named))
    pairs = {pair for rows in parts for pair in zip(rows.labels.tolist(), rows.folders, strict=True)}
    num_classes = len({label for label, _ in pairs})
    folders = {name for _, name in pairs}
    if len(pairs) == len(folders) == num_classes and "" not in folders:
        return tuple(name for _, name in sorted(pairs))
    logger.warning("%s: nothing names the classes; their numbers, 0 to %d, are used.", folder, num_classes - 1)
    return tuple(str(label) for label in range(num_classes))


def _check_labels(parts: list[_Rows], class_names: tuple[str, ...]) -> None:
    for rows in parts:
        bad = np.flatnonzero((rows.labels < 0) | (rows.labels >= len(class_names)))
        if len(bad):
            raise UserError(
                f"{rows.path}, row {bad[0]} (the first is 0): there are {len(class_names)} classes, "
                f"so the label must be from 0 to {len(class_names) - 1}, got {rows.labels[bad[0]]}."
            )


def _joined(parts: list[_Rows]) -> ImageSplit:
    return ImageSplit(np.concatenate([rows.images for rows in parts]), np.concatenate([rows.labels for rows in parts]))
