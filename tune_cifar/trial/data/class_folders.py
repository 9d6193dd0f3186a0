"""Reads images sorted into one folder a class, the layout people make by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tune_cifar.errors import UserError
from tune_cifar.trial.data.dataset import ImageSplit, SourceImages
from tune_cifar.trial.data.decoding import IMAGE_SIDE, IMAGE_SUFFIXES, decode_image


def is_class_folders(folder: Path) -> bool:
    """Whether `folder` looks like this layout: it has a folder `train` or `test`."""
    return any((folder / part).is_dir() for part in ("train", "test"))


def load_class_folders(folder: Path) -> SourceImages:
    """Read `train/CLASS/*.png` and `test/CLASS/*.png` (or another image suffix); classes are sorted by name.

    Hidden files, files of other suffixes and folders besides `train` and `test` are left alone. Raises
    `UserError` where the classes of the two parts differ, a class has no image or an image is not fit.
    """
    classes = {part: _class_names(folder / part) for part in ("train", "test")}
    class_names = classes["train"]
    if class_names != classes["test"]:
        lines = [
            f"  only in {part}: {', '.join(sorted(set(classes[part]) - set(classes[other])))}"
            for part, other in (("train", "test"), ("test", "train"))
            if set(classes[part]) - set(classes[other])
        ]
        raise UserError(f"{folder}: train and test must have the same classes.\n" + "\n".join(lines))
    return SourceImages(
        class_names, _load_part(folder / "train", class_names), _load_part(folder / "test", class_names)
    )


def _class_names(part_folder: Path) -> tuple[str, ...]:
    if not part_folder.is_dir():
        raise UserError(
            f"{part_folder.parent}: the folder {part_folder.name} is missing; "
            "images by class need both train/CLASS and test/CLASS."
        )
    names = sorted(entry.name for entry in part_folder.iterdir() if _is_visible(entry) and entry.is_dir())
    if not names:
        raise UserError(f"{part_folder}: there is no folder of a class in it.")
    return tuple(names)


def _load_part(part_folder: Path, class_names: tuple[str, ...]) -> ImageSplit:
    paths: list[Path] = []
    class_sizes = []
    for class_name in class_names:
        of_class = sorted(
            path
            for path in (part_folder / class_name).iterdir()
            if _is_visible(path) and path.suffix.lower() in IMAGE_SUFFIXES
        )
        if not of_class:
            raise UserError(
                f"{part_folder / class_name}: there is no image in it; suffixes: {' '.join(IMAGE_SUFFIXES)}."
            )
        paths += of_class
        class_sizes.append(len(of_class))
    images = np.empty((len(paths), IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    for row, path in enumerate(paths):
        if path.exists() and not path.is_file():  # of a pipe, opening it would wait for ever
            raise UserError(f"{path}: it has the name of an image and is no file. Move it away.")
        with path.open("rb") as stream:
            images[row] = decode_image(stream, str(path))
    return ImageSplit(images, np.repeat(np.arange(len(class_names), dtype=np.int64), class_sizes))


def _is_visible(path: Path) -> bool:
    # macOS leaves companions such as ._0001.png on foreign disks: the suffix of an image, but no image.
    return not path.name.startswith(".")
