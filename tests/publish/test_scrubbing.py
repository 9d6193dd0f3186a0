from __future__ import annotations

from tune_cifar.scrubbing import environment_without_secrets, scrub


def test_keys_signatures_and_users_are_taken_out(keys: dict[str, str]) -> None:
    text = (
        "PUT http://user:word@host/bucket/object?X-Amz-Signature=abc failed\n"
        "url: /bucket/object?X-Amz-Credential=x&y=z (Caused by 'refused')\n"
        f"key {keys['HF_TOKEN']}"
    )
    assert scrub(text) == (
        "PUT http://host/bucket/object?… failed url: /bucket/object?… (Caused by 'refused') key <HF_TOKEN>"
    )


def test_a_child_process_gets_no_key(keys: dict[str, str]) -> None:
    environment = environment_without_secrets()
    assert not set(keys) & set(environment)
    assert environment["no_proxy"] == "127.0.0.1"
