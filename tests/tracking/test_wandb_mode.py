import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tracking.wandb_helpers import KEY, FakeTrial, epoch_result, read_run, run_files
from tests.tracking.wandb_server import WandbServer
from tune_cifar.errors import UserError
from tune_cifar.tracking.wandb_callback import SearchWandbCallback
from tune_cifar.tracking.wandb_mode import choose_mode, sync_command

pytestmark = pytest.mark.usefixtures("fresh_client")


def test_a_key_in_the_environment_means_online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    mode, reason = choose_mode(None)
    assert mode == "online"
    assert KEY not in reason


@pytest.mark.parametrize(
    ("server", "mode"), [("https://wandb.example.org", "online"), ("https://other.example.org", "offline")]
)
def test_a_key_in_netrc_counts_for_its_own_server_only(server: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = Path(os.environ["HOME"]) / ".netrc"
    netrc.write_text(f"machine wandb.example.org\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    assert choose_mode(None)[0] == mode
    assert server in choose_mode(None)[1]


def test_no_key_means_offline_and_says_how_to_get_online(capfd: pytest.CaptureFixture[str]) -> None:
    mode, reason = choose_mode(None)
    assert mode == "offline"
    assert "wandb login" in reason
    assert "WANDB_API_KEY" in reason
    assert "\n" not in reason
    assert capfd.readouterr() == ("", "")


def test_online_without_a_key_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"--wandb says online, but there is no W&B key"):
        choose_mode("online")


@pytest.mark.parametrize("requested", ["offline", "disabled"])
def test_the_users_choice_needs_no_key_and_beats_the_environment(
    requested: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    assert choose_mode(requested)[0] == requested


@pytest.mark.parametrize(("value", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")])
def test_wandb_mode_is_respected(value: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", value)
    assert choose_mode(None)[0] == mode
    assert "WANDB_MODE" in choose_mode(None)[1]


def test_wandb_offline_is_respected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    mode, reason = choose_mode(None)
    assert mode == "offline"
    assert "wandb online" in reason


def test_wandb_mode_online_without_a_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match="WANDB_MODE says online"):
        choose_mode(None)


@pytest.mark.parametrize("requested", [None, "sometimes"])
def test_an_unknown_mode_is_the_users_mistake(requested: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UserError, match="must be online, offline or disabled, got 'sometimes'"):
        choose_mode(requested)


@pytest.mark.parametrize("key", ["tooshort-secret", "x" * 39, "spaces in a key of more than forty characters"])
@pytest.mark.parametrize("requested", [None, "online"])
def test_a_malformed_key_is_refused_and_not_shown(
    key: str, requested: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(UserError, match="The W&B key does not fit: WANDB_API_KEY") as error:
        choose_mode(requested)
    assert key not in str(error.value)


@pytest.mark.parametrize("requested", [None, "online", "offline"])
@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("WANDB_BASE_URL", "localhost:8080", "base_url: URL scheme should be 'http' or 'https'"),
        ("WANDB_SILENT", "maybe", "silent: Input should be a valid boolean"),
    ],
)
def test_a_setting_that_the_client_refuses_is_the_users_mistake(
    variable: str, value: str, problem: str, requested: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=problem) as error:
        choose_mode(requested)
    assert "\n" not in str(error.value)


def test_sync_command_uploads_every_offline_run(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, tmp_path: Path
) -> None:
    folder = tmp_path / "a search"
    folder.mkdir()
    callback = make_callback(folder=folder)
    for trial in (FakeTrial("t1"), FakeTrial("t2")):
        callback.log_trial_start(trial)
        for epoch in (1, 2):
            callback.log_trial_result(epoch, trial, epoch_result(epoch))
        callback.log_trial_end(trial)
    callback.on_experiment_end([])

    command = shlex.split(sync_command(folder))
    assert command[:2] == ["wandb", "sync"]
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run([tool, *command[1:]], check=True, capture_output=True, text=True)
    assert "Finished syncing" in done.stderr
    assert sorted(server.runs) == ["my-search-t1", "my-search-t2"]
    local = read_run(run_files(folder)[0])
    for served in server.runs.values():
        assert {row.pop("_step"): row for row in served.metrics} == local.rows
        assert served.exit_code == 0
        assert served.config["optimizer"] == {"lr": 0.0042}
    assert {served.display_name for served in server.runs.values()} == {"1-ResNet18-lr0.0042", "2-ResNet18-lr0.0042"}
