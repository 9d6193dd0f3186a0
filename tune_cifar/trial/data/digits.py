"""scikit-learn's bundled handwritten digits as 32x32 images, to try anything without a download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tune_cifar.trial.data.dataset import ImageSplit, SourceImages, stratified_rows
from tune_cifar.trial.data.decoding import IMAGE_SIDE

_TEST_SEED = 19_980_701
_BRIGHTEST = 16  # load_digits has 8x8 pixels of 0 to 16


def load_digits_images() -> SourceImages:
    """Load the 1,797 digits, scaled bilinearly to 32x32, grey as RGB; a fixed stratified fifth is for test.

    The data is the test set of https://doi.org/10.24432/C50P49 (Alpaydin and Kaynak, 1998).
    """
    # Imported here alone: scikit-learn and scipy take seconds that a trial on CIFAR-10 need not wait.
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / _BRIGHTEST)).astype(np.uint8)
    side = (IMAGE_SIDE, IMAGE_SIDE)
    scaled = [Image.fromarray(image).resize(side, Image.Resampling.BILINEAR) for image in pixels]
    grey = np.stack([np.asarray(image) for image in scaled])
    everything = ImageSplit(np.repeat(grey[..., np.newaxis], 3, axis=-1), digits.target.astype(np.int64))
    in_test = stratified_rows(everything.labels, round(len(everything) / 5), seed=_TEST_SEED)
    class_names = tuple(str(name) for name in digits.target_names)
    return SourceImages(
        class_names, everything.take(np.flatnonzero(~in_test)), everything.take(np.flatnonzero(in_test))
    )
