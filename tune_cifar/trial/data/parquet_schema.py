"""Checks the columns of a parquet file and finds the class names in its metadata, before any row is read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from tune_cifar.errors import UserError

IMAGE_COLUMNS = ("img", "image")
"""What the image's column is called: `img` in Hugging Face's CIFAR-10, `image` in most other datasets."""


def check_columns(path: Path, schema: pa.Schema) -> str:
    """Return the name of the image column; `UserError` unless it and `label` are there and fit."""
    names: list[str] = list(schema.names)
    image_columns = [name for name in names if name in IMAGE_COLUMNS]
    problems = []
    if len(image_columns) != 1:
        problems.append("it must have one column with images, `img` or `image`")
    elif not _holds_images(schema.field(image_columns[0]).type):
        found = schema.field(image_columns[0]).type
        problems.append(f"column `{image_columns[0]}` must be of type struct<bytes: binary, …>, it is {found}")
    if names.count("label") != 1:
        problems.append("it must have one column `label`")
    elif not pa.types.is_integer(schema.field("label").type):
        problems.append(f"column `label` must be of an integer type, it is {schema.field('label').type}")
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}. Columns found: {', '.join(names) or 'none'}.")
    return image_columns[0]


def stored_class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """The names that Hugging Face's `datasets` stores with a `ClassLabel` column `label`, or None.

    They are in the schema's metadata, key `huggingface`, as JSON
    (https://huggingface.co/docs/datasets/package_reference/main_classes#datasets.ClassLabel).
    """
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        names = metadata["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _holds_images(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    stored = kind.field("bytes").type
    return bool(pa.types.is_binary(stored) or pa.types.is_large_binary(stored))
