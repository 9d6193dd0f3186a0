from __future__ import annotations

from pathlib import Path

import pytest

from tune_cifar.cluster.remote_flags import flags_for_head
from tune_cifar.search_flags import parse_search_flags


@pytest.mark.parametrize(
    ("typed", "passed"),
    [
        ("s.yaml --address head --name a --results out --quiet", "--quiet"),
        ("--address=head --count 3 s.yaml --prior old --prior older.csv", "--count 3"),
        ("--addr head s.yaml --time-budget 1h30m --hang-timeout off", "--time-budget 1h30m --hang-timeout off"),
        ("--address head --data s.yaml --seed 0 s.yaml", "--data s.yaml --seed 0"),
        ("--address head ./s.yaml --data s.yaml", "--data s.yaml"),
        ("--address head --resume --name a --remote-results /mnt/r", "--resume"),
        ("--address head --publish s3://b/p --publish hf://o/n --dry-run", "--publish s3://b/p --publish hf://o/n"),
        (
            "--address head --prediction-images all --gpus-per-trial auto",
            "--prediction-images all --gpus-per-trial auto",
        ),
    ],
)
def test_the_head_gets_every_flag_but_paths_and_names(typed: str, passed: str) -> None:
    words = typed.split()
    assert flags_for_head(words, parse_search_flags(words)) == passed.split()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--attach a", "--attach needs --address HEAD"),
        ("s.yaml --remote-results /mnt", "--remote-results needs --address HEAD"),
        ("--address head --attach a --stop b", "give one"),
        ("--address head --stop a --dry-run", "leave out the rest"),
        ("--address head s.yaml --attach a", "leave out the rest"),
        ("--address head --resume", "needs --name NAME"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    typed: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse_search_flags(typed.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_sweep_file_is_left_out_by_its_place() -> None:
    words = ["--address", "head", "folder/../s.yaml"]
    args = parse_search_flags(words)
    assert args.sweep == Path("folder/../s.yaml")
    assert flags_for_head(words, args) == []
