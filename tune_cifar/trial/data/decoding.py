"""Decodes one image file to 32x32 RGB, so that every source has the same rules and error messages."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from tune_cifar.errors import UserError

IMAGE_SIDE = 32
"""Height and width of every image, in pixels."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")

# A closed list: pillow would also try formats that run other programs, such as EPS with Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
# All of at most 8 bits a channel: pillow clips 16-bit and float images, which turns most of them white.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def decode_image(stream: BinaryIO, place: str) -> np.ndarray:
    """Decode one image to uint8 [32, 32, 3]; grey, palette and CMYK images become RGB, alpha is dropped.

    `place` names the image in the `UserError` raised where it does not decode or has another size or depth.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(stream, formats=_FORMATS)
        if image.size == (IMAGE_SIDE, IMAGE_SIDE) and image.mode in _MODES:
            return _pixels(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{place}: the image claims a size far above {IMAGE_SIDE}x{IMAGE_SIDE}.") from None
    except Exception as error:
        # Broken bytes make pillow's decoders raise whatever they stumble on: OSError, SyntaxError,
        # ValueError, EOFError, struct.error … (https://github.com/python-pillow/Pillow/tree/main/src/PIL).
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(_FORMATS)}"
        raise UserError(f"{place}: the image does not decode: {reason}.") from error
    if image.mode not in _MODES:
        raise UserError(f"{place}: the image has pixels of mode {image.mode}; convert it to RGB or grey of 8 bits.")
    width, height = image.size
    raise UserError(f"{place}: the image must be {IMAGE_SIDE}x{IMAGE_SIDE} pixels, it is {width}x{height}.")


def _pixels(image: Image.Image) -> np.ndarray:
    image.load()
    # Alpha is dropped below; pillow warns about a palette's alpha unless it is gone before.
    image.info.pop("transparency", None)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
