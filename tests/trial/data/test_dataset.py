from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_cifar.errors import UserError
from tune_cifar.trial.data.dataset import ImageDataset, ImageSplit, SourceImages, build_dataset, stratified_rows


def make_split(labels: list[int], *, first_pixel: int = 0) -> ImageSplit:
    """Images that are all different: the first two channels of a pixel count the rows."""
    images = np.zeros((len(labels), 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels)) % 256
    images[:, 0, 0, 1] = np.arange(len(labels)) // 256
    images[:, 0, 0, 2] = first_pixel
    return ImageSplit(images, np.array(labels, dtype=np.int64))


def make_source(labels: list[int], *, num_classes: int) -> SourceImages:
    names = tuple(f"class {label}" for label in range(num_classes))
    return SourceImages(names, make_split(labels), make_split([0, 1], first_pixel=9))


def rows_of(split: ImageSplit) -> list[int]:
    return (split.images[:, 0, 0, 0].astype(int) + 256 * split.images[:, 0, 0, 1].astype(int)).tolist()


def build(labels: list[int], *, num_classes: int, train_images: int | None = None) -> ImageDataset:
    return build_dataset("small", make_source(labels, num_classes=num_classes), train_images=train_images)


def test_validation_is_a_stratified_tenth_and_disjoint_from_train() -> None:
    labels = [row % 10 for row in range(1000)]
    dataset = build(labels, num_classes=10)
    assert np.bincount(dataset.validation.labels).tolist() == [10] * 10
    assert np.bincount(dataset.train.labels).tolist() == [90] * 10
    assert sorted(rows_of(dataset.train) + rows_of(dataset.validation)) == list(range(1000))
    for split in (dataset.train, dataset.validation):
        assert split.labels.tolist() == [labels[row] for row in rows_of(split)]
        assert split.images.flags.c_contiguous
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)


def test_the_split_is_pinned() -> None:
    # Results of two versions are only comparable on the same images: whoever changes this must mean it.
    dataset = build([row % 2 for row in range(40)], num_classes=2)
    assert rows_of(dataset.validation) == [0, 2, 11, 35]
    assert dataset.fingerprint == ("sha256:ecd3d87eeabe7307bf5604a31bea253580a17f2aebb3e89777dfecf1714d01e6")


def test_train_images_cuts_train_alone() -> None:
    labels = [row % 10 for row in range(1000)]
    whole, cut = build(labels, num_classes=10), build(labels, num_classes=10, train_images=100)
    assert np.bincount(cut.train.labels).tolist() == [10] * 10
    assert set(rows_of(cut.train)) < set(rows_of(whole.train))
    assert rows_of(cut.validation) == rows_of(whole.validation)
    assert rows_of(cut.test) == rows_of(whole.test)
    assert cut.fingerprint == whole.fingerprint


@pytest.mark.parametrize("train_images", [-1, 0, 9, 901])
def test_train_images_out_of_range_is_an_error(train_images: int) -> None:
    with pytest.raises(UserError, match=f"must be from 10 to 900, got {train_images}"):
        build([row % 10 for row in range(1000)], num_classes=10, train_images=train_images)


@pytest.mark.parametrize("train_images", [10, 899, 900])
def test_train_images_takes_its_limits(train_images: int) -> None:
    dataset = build([row % 10 for row in range(1000)], num_classes=10, train_images=train_images)
    assert len(dataset.train) == train_images
    assert set(dataset.train.labels.tolist()) == set(range(10))


def test_two_images_a_class_are_enough() -> None:
    dataset = build([0, 0, 1, 1, 2, 2], num_classes=3)
    assert sorted(dataset.train.labels.tolist()) == sorted(dataset.validation.labels.tolist()) == [0, 1, 2]


def test_fingerprint_follows_every_part_of_the_data() -> None:
    source = make_source([row % 2 for row in range(40)], num_classes=2)
    changed_test = make_split([0, 1], first_pixel=8)
    other_order = source.train.take(np.arange(40)[::-1])
    relabelled = ImageSplit(source.train.images, 1 - source.train.labels)
    sources = [
        source,
        dataclasses.replace(source, class_names=("cat", "dog")),
        dataclasses.replace(source, test=changed_test),
        dataclasses.replace(source, train=other_order),
        dataclasses.replace(source, train=relabelled),
    ]
    fingerprints = [build_dataset("small", each, train_images=None).fingerprint for each in sources]
    assert len(set(fingerprints)) == len(sources)
    assert build_dataset("other name", source, train_images=None).fingerprint == fingerprints[0]


@pytest.mark.parametrize(
    ("labels", "num_classes", "rule"),
    [
        ([], 2, "no training images"),
        ([0] * 20, 1, "at least 2"),
        ([0] * 20 + [1], 2, r"2 training images.*Too few: class 1 \(1\)"),
        ([0, 0, 1, 1], 3, r"Too few: class 2 \(0\)"),
    ],
)
def test_unfit_classes_are_an_error(labels: list[int], num_classes: int, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        build(labels, num_classes=num_classes)


def test_no_test_images_is_an_error() -> None:
    source = dataclasses.replace(make_source([0, 0, 1, 1], num_classes=2), test=make_split([]))
    with pytest.raises(UserError, match="no test images"):
        build_dataset("small", source, train_images=None)


def test_equal_class_names_are_an_error() -> None:
    source = dataclasses.replace(make_source([0, 0, 1, 1], num_classes=2), class_names=("cat", "cat"))
    with pytest.raises(UserError, match="same name: cat, cat"):
        build_dataset("small", source, train_images=None)


@given(st.data())
def test_stratified_rows_keeps_every_class_and_its_share(data: st.DataObject) -> None:
    class_sizes = data.draw(st.lists(st.integers(1, 30), min_size=2, max_size=8))
    labels = np.repeat(np.arange(len(class_sizes)), class_sizes)
    num_rows = data.draw(st.integers(len(class_sizes), len(labels)))
    chosen = stratified_rows(labels, num_rows, seed=0)
    assert chosen.sum() == num_rows
    spare_share = (num_rows - len(class_sizes)) / max(len(labels) - len(class_sizes), 1)
    for size, quota in zip(class_sizes, np.bincount(labels[chosen]), strict=True):
        assert 1 <= quota <= size
        assert abs(quota - 1 - spare_share * (size - 1)) < 1
