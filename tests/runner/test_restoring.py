from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tune_cifar.errors import UserError
from tune_cifar.runner.places import TunePlace
from tune_cifar.runner.restoring import RestoreGuard


def test_a_new_search_is_let_through(tmp_path: Path) -> None:
    RestoreGuard(TunePlace(tmp_path), expects=False).setup()


def test_a_resume_is_let_through_once_tune_has_given_back_what_it_saved(tmp_path: Path) -> None:
    guard = RestoreGuard(TunePlace(tmp_path), expects=True)
    with pytest.raises(UserError, match=r"Ray cannot take up its state in .*/ray"):
        guard.setup()
    guard.set_state(RestoreGuard(TunePlace(tmp_path), expects=False).get_state())
    guard.setup()


def test_tune_saves_it_always_and_pickles_nothing_of_it(tmp_path: Path) -> None:
    guard = RestoreGuard(TunePlace(tmp_path), expects=True)
    assert guard.get_state()  # Tune gives back no state that is empty
    assert pickle.loads(pickle.dumps(guard)).__dict__ == {}  # noqa: S301 made here
