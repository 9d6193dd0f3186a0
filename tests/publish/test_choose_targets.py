from __future__ import annotations

from pathlib import Path

import pytest

from tune_cifar.errors import UserError
from tune_cifar.publish.bucket_target import BucketTarget
from tune_cifar.publish.choose_targets import choose_targets
from tune_cifar.publish.folder_target import FolderTarget
from tune_cifar.publish.gradient_target import GradientTarget
from tune_cifar.publish.hugging_face_target import HuggingFaceTarget
from tune_cifar.publish.paperspace_target import PaperspaceTarget
from tune_cifar.publish.target import PublishOptions
from tune_cifar.publish.wandb_target import WandbTarget


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishOptions:
    monkeypatch.chdir(tmp_path)
    return PublishOptions(search=tmp_path, gradient_project="p1")


def test_every_form_is_known(
    options: PublishOptions, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    (tmp_path / "key.json").touch()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    texts = ["gradient", "paperspace:s3://b/p", "s3://b/p", "gs://b", "hf://org/name", "wandb", "models/", "wandb"]
    targets = choose_targets(texts, options)
    assert [type(target) for target in targets] == [
        GradientTarget,
        PaperspaceTarget,
        BucketTarget,
        BucketTarget,
        HuggingFaceTarget,
        WandbTarget,
        FolderTarget,
    ]
    assert [target.text for target in targets] == texts[:-1]
    assert not (tmp_path / "models").exists()


def test_every_mistake_is_told_at_once(options: PublishOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAPERSPACE_API_KEY", raising=False)
    with pytest.raises(UserError) as error:
        choose_targets(["gradeint", "ftp://user:word@host/x", "paperspace:x", "gradient", "hf://x", ""], options)
    lines = str(error.value).splitlines()
    assert lines[0] == "The model could not be published:"
    assert lines[1].startswith("* 'gradeint': not a target; there are gradient, ")
    assert lines[2].startswith("* ftp://: not a target; ")
    assert lines[3].startswith("* paperspace: takes the bucket that gets the files")
    assert lines[4].startswith("* gradient: set PAPERSPACE_API_KEY")
    assert lines[5].startswith("* hf://x: write hf://ORG/NAME")
    assert lines[6].startswith("* '': not a target; there are ")  # what an unset variable of a shell leaves
    assert "word" not in str(error.value)


def test_a_word_is_a_folder_only_if_it_is_there(options: PublishOptions, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (target,) = choose_targets(["models"], options)
    assert isinstance(target, FolderTarget)
