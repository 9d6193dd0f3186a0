"""Run on the head by the project's own Python, sent there as text: says what is installed, and where a search would be.

Arguments: the search's name and the folder of results. Prints one line of JSON. It imports nothing of this project,
so that it also tells of an older one.
"""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def installed(package: str) -> "str | None":
    """The version of a package, None where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def token() -> "str | None":
    """The token that Ray takes where its authentication is on, for the reader of this output alone."""
    try:
        return (Path.home() / ".ray" / "auth_token").read_text().strip() or None
    except OSError:
        return None


def main(name: str, results: str) -> None:
    """Print what `HeadFacts` holds."""
    folder = Path(results).expanduser().absolute() / name
    facts = {
        "project": str(Path.cwd()),
        "python": "{}.{}".format(*sys.version_info[:2]),
        "ray": installed("ray"),
        "tune_cifar": installed("tune-cifar"),
        "folder": str(folder),
        "folder_exists": folder.exists(),
        "token": token(),
    }
    print(json.dumps(facts))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
