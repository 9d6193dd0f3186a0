"""Says which folders can be loaded, in one place, for every message that must tell a user how to get data."""

from __future__ import annotations

LAYOUTS = """\
  - cifar-10-batches-py, as unpacked from the official archive: this folder or the one it is in
  - Hugging Face parquet files, train*.parquet and test*.parquet, in the folder or one right below it,
    with an image column img or image (struct {bytes, path}) and an integer column label
  - image files by class, train/CLASS/*.png and test/CLASS/*.png (or jpg, bmp, gif, ppm, tiff, webp)
All images must be 32x32."""
"""The layouts of a folder of data, one a paragraph."""
