from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tune_cifar.errors import UserError
from tune_cifar.trial.data.decoding import IMAGE_SUFFIXES, decode_image


def saved(image: Image.Image, image_format: str, **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)  # type: ignore[arg-type]
    stream.seek(0)
    return stream


def test_rgb_pixels_are_kept(encode_image: Callable[..., bytes]) -> None:
    pixels = decode_image(io.BytesIO(encode_image(seed=3)), "here")
    expected = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("mode", "colour", "image_format", "expected"),
    [
        ("L", 100, "PNG", (100, 100, 100)),
        ("1", 1, "PNG", (255, 255, 255)),
        ("LA", (100, 0), "PNG", (100, 100, 100)),
        ("RGBA", (10, 20, 30, 0), "PNG", (10, 20, 30)),
        ("CMYK", (0, 0, 0, 155), "JPEG", (100, 100, 100)),
        ("CMYK", (0, 0, 0, 155), "TIFF", (100, 100, 100)),
    ],
)
def test_other_modes_become_rgb(
    mode: str, colour: int | tuple[int, ...], image_format: str, expected: tuple[int, int, int]
) -> None:
    pixels = decode_image(saved(Image.new(mode, (32, 32), colour), image_format), "here")
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_palette_with_alpha_becomes_rgb() -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    pixels = decode_image(saved(image, "PNG", transparency=b"\x10\x80"), "here")
    assert pixels[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("suffix", sorted(set(IMAGE_SUFFIXES)))
def test_every_known_suffix_decodes(suffix: str) -> None:
    pixels = decode_image(saved(Image.new("RGB", (32, 32), (250, 250, 250)), Image.registered_extensions()[suffix]), "")
    assert np.abs(pixels.astype(int) - 250).max() <= 2


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_pixels_are_an_error(mode: str) -> None:
    with pytest.raises(UserError, match=rf"^here: .*mode {mode}.*8 bits"):
        decode_image(saved(Image.new(mode, (32, 32), 1000), "TIFF"), "here")


def test_another_size_is_an_error(encode_image: Callable[..., bytes]) -> None:
    with pytest.raises(UserError, match=r"^here: .*must be 32x32 pixels, it is 28x32"):
        decode_image(io.BytesIO(encode_image(size=(28, 32))), "here")


@pytest.mark.parametrize("side", [10_000, 60_000])  # pillow warns of the first and refuses the second
def test_decompression_bomb_is_an_error(side: int) -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    with pytest.raises(UserError, match=r"^here: .*far above 32x32"):
        decode_image(io.BytesIO(bomb), "here")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("content", [b"", b"no image at all", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n"])
def test_unknown_format_is_an_error(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^here: .*does not decode: it is none of PNG, JPEG"):
        decode_image(io.BytesIO(content), "here")


@pytest.mark.parametrize("suffix", ["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_broken_bytes_are_an_error_and_nothing_else(suffix: str, encode_image: Callable[..., bytes]) -> None:
    whole = encode_image(suffix=suffix)
    for length in range(0, len(whole) * 9 // 10, max(1, len(whole) // 50)):
        with pytest.raises(UserError, match=r"^here: "):
            decode_image(io.BytesIO(whole[:length]), "here")
