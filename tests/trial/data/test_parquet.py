from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tune_cifar.errors import UserError
from tune_cifar.trial.data.parquet import find_parquet_files, load_parquet

IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture
def write(tmp_path: Path, encode_image: Callable[..., bytes]) -> Callable[..., Path]:
    """Write one parquet file; row k is an image of seed k with the given label and path."""

    def write_file(
        name: str,
        labels: list[Any],
        *,
        paths: list[str | None] | None = None,
        names: list[str] | None = None,
        cells: list[Any] | None = None,
        image_column: str = "img",
        image_type: pa.DataType = IMAGE_TYPE,
        label_type: pa.DataType | None = None,
    ) -> Path:
        paths = paths or [None] * len(labels)
        if cells is None:
            cells = [{"bytes": encode_image(seed=row), "path": path} for row, path in enumerate(paths)]
        table = pa.table(
            {image_column: pa.array(cells, image_type), "label": pa.array(labels, label_type or pa.int64())}
        )
        if names is not None:
            features = {"label": {"names": names, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path, row_group_size=3)
        return path

    return write_file


LABELS = [0, 1, 1, 0, 1]


def test_rows_and_class_names_are_read(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("train-00000-of-00002.parquet", LABELS, names=["cat", "dog"])
    write("train-00001-of-00002.parquet", [1], names=["cat", "dog"])
    write("test-00000-of-00001.parquet", [1, 0], names=["cat", "dog"])
    write("validation.parquet", ["not", "read"], label_type=pa.string())
    source = load_parquet(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [*LABELS, 1]
    assert source.test.labels.tolist() == [1, 0]
    assert source.train.labels.dtype == np.int64
    assert source.train.images.flags.c_contiguous
    expected = np.random.default_rng(4).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(source.train.images[4], expected)


def test_more_rows_than_a_batch_keep_their_order(
    tmp_path: Path, write: Callable[..., Path], encode_image: Callable[..., bytes]
) -> None:
    images = [{"bytes": encode_image(seed=seed), "path": None} for seed in (0, 1)]
    labels = [row * row % 3 % 2 for row in range(600)]
    for name in ("train.parquet", "test.parquet"):
        write(name, labels, cells=[images[label] for label in labels])
    train = load_parquet(tmp_path).train
    assert train.labels.tolist() == labels
    first = [train.images[labels.index(label)] for label in (0, 1)]
    np.testing.assert_array_equal(train.images, np.stack([first[label] for label in labels]))


@pytest.mark.parametrize("string_type", [pa.string(), pa.large_string()])
def test_class_names_come_from_paths_without_metadata(
    string_type: pa.DataType, tmp_path: Path, write: Callable[..., Path]
) -> None:
    kind = pa.struct({"bytes": pa.large_binary(), "path": string_type})
    paths = [f"{['dog', 'cat'][label]}/{row}.png" for row, label in enumerate(LABELS)]
    for name in ("train.parquet", "test.parquet"):
        write(name, LABELS, paths=paths, image_column="image", image_type=kind)
    assert load_parquet(tmp_path).class_names == ("dog", "cat")


@pytest.mark.parametrize(
    "paths",
    [
        None,
        ["a.png"] * 5,
        ["train/1.png"] * 5,  # the folder is the part's, not the class's
        ["cat/1.png", "dog/1.png", "dog/2.png", "cat/2.png", "cat/3.png"],  # the last contradicts the second
        ["cat/1.png", "dog/1.png", "dog/2.png", "cat/2.png", None],
    ],
)
def test_class_names_are_numbers_where_paths_do_not_tell(
    paths: list[str | None] | None,
    tmp_path: Path,
    write: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("train.parquet", "test.parquet"):
        write(name, LABELS, paths=paths)
    with caplog.at_level(logging.WARNING):
        assert load_parquet(tmp_path).class_names == ("0", "1")
    assert "their numbers, 0 to 1, are used" in caplog.text


def test_struct_without_path_is_read(
    tmp_path: Path, write: Callable[..., Path], encode_image: Callable[..., bytes]
) -> None:
    cells = [{"bytes": encode_image()}] * 5
    for name in ("train.parquet", "test.parquet"):
        write(name, LABELS, cells=cells, image_type=pa.struct({"bytes": pa.binary()}))
    assert load_parquet(tmp_path).train.labels.tolist() == LABELS


def test_files_one_folder_below_are_found(tmp_path: Path, write: Callable[..., Path]) -> None:
    for name in ("train.parquet", "test.parquet"):
        write(f"plain_text/{name}", LABELS)
    assert len(load_parquet(tmp_path).train) == 5


def test_several_folders_below_are_an_error(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("a/train.parquet", LABELS)
    write("b/test.parquet", LABELS)
    with pytest.raises(UserError, match=r"several folders \(a, b\)"):
        load_parquet(tmp_path)


def test_missing_part_is_an_error(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("train.parquet", LABELS)
    with pytest.raises(UserError, match=r"starts with 'test'; found: train\.parquet"):
        load_parquet(tmp_path)


def test_files_that_disagree_on_names_are_an_error(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("train.parquet", LABELS, names=["cat", "dog"])
    write("test.parquet", LABELS, names=["dog", "cat"])
    with pytest.raises(UserError, match=r"different classes: train\.parquet, test\.parquet"):
        load_parquet(tmp_path)


@pytest.mark.parametrize(("bad", "names"), [(-1, ["cat", "dog"]), (2, ["cat", "dog"]), (-1, None), (10**12, None)])
def test_label_outside_the_classes_is_an_error(
    bad: int, names: list[str] | None, tmp_path: Path, write: Callable[..., Path]
) -> None:
    write("train.parquet", LABELS, names=names)
    write("test.parquet", [0, 1, bad], names=names)
    with pytest.raises(UserError, match=rf"test\.parquet, row 2 .*must be from 0 to \d, got {bad}"):
        load_parquet(tmp_path)


def test_label_too_large_for_int64_is_an_error(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("train.parquet", [0, 2**64 - 1], label_type=pa.uint64())
    write("test.parquet", LABELS)
    with pytest.raises(UserError, match=r"train\.parquet: .*18446744073709551615"):
        load_parquet(tmp_path)


def test_null_label_is_an_error(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("train.parquet", [0, 1, 0, 1, None])
    with pytest.raises(UserError, match=r"train\.parquet, row 4 .*label is missing"):
        load_parquet(tmp_path)


@pytest.mark.parametrize("bad_cell", [None, {"bytes": None, "path": "cat/1.png"}])
def test_null_image_is_an_error(
    bad_cell: object, tmp_path: Path, write: Callable[..., Path], encode_image: Callable[..., bytes]
) -> None:
    good = {"bytes": encode_image(), "path": None}
    write("train.parquet", [0, 1, 0, 1, 1], cells=[good, good, good, good, bad_cell])
    with pytest.raises(UserError, match=r"train\.parquet, row 4 .*bytes are missing"):
        load_parquet(tmp_path)


@pytest.mark.parametrize("content", [b"no image", b""])
def test_image_that_does_not_decode_is_an_error(
    content: bytes, tmp_path: Path, write: Callable[..., Path], encode_image: Callable[..., bytes]
) -> None:
    cells = [{"bytes": encode_image(), "path": None}] * 300
    cells[270] = {"bytes": content, "path": None}
    write("train.parquet", [0] * 300, cells=cells)
    with pytest.raises(UserError, match=r"train\.parquet, row 270 .*does not decode"):
        load_parquet(tmp_path)


def test_image_of_another_size_is_an_error(
    tmp_path: Path, write: Callable[..., Path], encode_image: Callable[..., bytes]
) -> None:
    write("train.parquet", [0], cells=[{"bytes": encode_image(size=(28, 28)), "path": None}])
    with pytest.raises(UserError, match=r"train\.parquet, row 0 .*it is 28x28"):
        load_parquet(tmp_path)


def test_damaged_files_are_an_error_and_nothing_else(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write("train.parquet", LABELS)
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"train\.parquet: cannot be read as parquet"):
            load_parquet(tmp_path)


def test_folder_called_like_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").mkdir()
    assert find_parquet_files(tmp_path)
    with pytest.raises(UserError, match=r"train\.parquet: it has the name of a parquet file and is no file"):
        load_parquet(tmp_path)
