from __future__ import annotations

import stat
from pathlib import Path

import pytest
from ray._private.authentication.authentication_token_setup import _get_default_token_path

from tune_cifar.errors import UserError
from tune_cifar.runner.ray_token import provide_token


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Ray looks for its token, in a home that has none yet, and the mode that a user has who sets nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return Path(_get_default_token_path())


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_where_ray_looks_and_only_its_owner_reads_it(token_file: Path) -> None:
    provide_token()
    assert len(bytes.fromhex(token_file.read_text())) == 32
    assert (_mode(token_file), _mode(token_file.parent)) == (0o600, 0o700)
    assert list(token_file.parent.iterdir()) == [token_file]


def test_a_token_that_is_there_stays_and_is_closed_to_others(token_file: Path) -> None:
    token_file.parent.mkdir()
    token_file.write_text("kept")
    token_file.chmod(0o644)
    provide_token()
    assert (token_file.read_text(), _mode(token_file)) == ("kept", 0o600)


@pytest.mark.parametrize(
    ("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "own"), ("RAY_AUTH_TOKEN_PATH", "/own")]
)
def test_where_ray_does_not_ask_for_the_file_none_is_made(
    token_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    provide_token()
    assert not token_file.exists()


def test_a_home_that_cannot_be_written_is_told(token_file: Path) -> None:
    token_file.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="auth_token cannot be written"):
        provide_token()
