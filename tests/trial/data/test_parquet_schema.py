from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tune_cifar.errors import UserError
from tune_cifar.trial.data.parquet_schema import check_columns, stored_class_names

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
PATH = Path("train.parquet")


@pytest.mark.parametrize("name", ["img", "image"])
@pytest.mark.parametrize("label_type", [pa.int64(), pa.uint8()])
def test_known_columns_fit(name: str, label_type: pa.DataType) -> None:
    schema = pa.schema({name: IMAGE, "label": label_type, "more": pa.string()})
    assert check_columns(PATH, schema) == name


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ([("label", pa.int64())], r"one column with images.*found: label"),
        ([("img", IMAGE), ("image", IMAGE), ("label", pa.int64())], "one column with images"),
        ([("img", pa.binary()), ("label", pa.int64())], "`img` must be of type struct.*it is binary"),
        ([("img", pa.struct({"path": pa.string()})), ("label", pa.int64())], "`img` must be of type struct"),
        ([("img", pa.struct({"bytes": pa.string()})), ("label", pa.int64())], "`img` must be of type struct"),
        ([("img", IMAGE), ("fine_label", pa.int64())], "one column `label`.*found: img, fine_label"),
        ([("img", IMAGE), ("label", pa.int64()), ("label", pa.int64())], "one column `label`"),
        ([("img", IMAGE), ("label", pa.string())], "`label` must be of an integer type, it is string"),
        ([("img", IMAGE), ("label", pa.float64())], "integer type, it is double"),
        ([("img", IMAGE), ("label", pa.bool_())], "integer type, it is bool"),
        ([], r"one column with images.*; it must have one column `label`\. Columns found: none"),
    ],
)
def test_unfit_columns_are_named(columns: list[tuple[str, pa.DataType]], problem: str) -> None:
    with pytest.raises(UserError, match=f"^train.parquet: .*{problem}"):
        check_columns(PATH, pa.schema(columns))


def schema_with(metadata: dict[str, str] | None) -> pa.Schema:
    return pa.schema({"label": pa.int64()}, metadata=metadata)


def test_class_names_are_read_from_metadata() -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    stored = json.dumps({"info": {"features": features}})
    assert stored_class_names(schema_with({"huggingface": stored})) == ("cat", "dog")


@pytest.mark.parametrize(
    "stored",
    [
        "no json",
        "[]",
        "{}",
        '{"info": {"features": {"label": {"_type": "Value"}}}}',
        '{"info": {"features": {"label": {"names": null}}}}',
        '{"info": {"features": {"label": {"names": []}}}}',
        '{"info": {"features": {"label": {"names": [1, 2]}}}}',
    ],
)
def test_metadata_without_class_names_has_none(stored: str) -> None:
    assert stored_class_names(schema_with({"huggingface": stored})) is None
    assert stored_class_names(schema_with({"pandas": stored})) is None
    assert stored_class_names(schema_with(None)) is None
