from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.searches import make_predictions
from tune_cifar.errors import UserError
from tune_cifar.report.mistakes import MISTAKES_FILE, NUM_WORST, find_mistakes, load_mistakes, save_mistakes


def test_all_images_are_counted_and_the_worst_mistakes_come_first() -> None:
    predictions = make_predictions()
    found = find_mistakes(predictions)
    wrong = predictions.labels != predictions.predicted
    assert (found.num_images, found.num_wrong) == (600, wrong.sum())
    assert found.confusion[3][5] == ((predictions.labels == 3) & (predictions.predicted == 5)).sum()
    of_label = predictions.scores[np.arange(600), predictions.labels]
    assert [one.label_probability for one in found.worst] == sorted(of_label[wrong].tolist())[:NUM_WORST]
    for one in found.worst:
        assert (one.label, one.predicted) == (predictions.labels[one.row], predictions.predicted[one.row])
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(one.png_base64))))
        assert (picture == predictions.images[one.row]).all()


def test_a_model_without_a_mistake_has_none() -> None:
    predictions = make_predictions(number=20)
    predictions.predicted[:] = predictions.labels
    found = find_mistakes(predictions)
    assert (found.num_wrong, found.worst) == (0, ())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert load_mistakes(tmp_path) is None
    found = find_mistakes(make_predictions())
    save_mistakes(tmp_path, found)
    assert load_mistakes(tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == [MISTAKES_FILE]


@pytest.mark.parametrize("text", ["", "{}", '{"class_names": [], "confusion": [], "worst": [{}]}'])
def test_a_broken_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / MISTAKES_FILE).write_text(text)
    with pytest.raises(UserError, match=r"mistakes\.json cannot be read"):
        load_mistakes(tmp_path)
