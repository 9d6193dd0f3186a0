"""The artifact part of the loopback W&B server: takes what a run logs and keeps every file's content by its name."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ServedArtifact:
    """An artifact as it arrived: its files by name, and whether the client said that it is complete."""

    name: str
    kind: str
    run_id: str
    aliases: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    committed: bool = False


class ArtifactStore:
    """Answers the GraphQL operations of an artifact's upload, and takes the files that are put."""

    def __init__(self) -> None:
        self.artifacts: list[ServedArtifact] = []

    def graphql(self, query: str, variables: dict[str, Any], server_url: str) -> dict[str, Any] | None:
        """The answer to `query`, None where it is about something else."""
        operations = {
            "CreateArtifact": self._create,
            "CreateArtifactManifest": self._create_manifest,
            "UpdateArtifactManifest": self._update_manifest,
            "CreateArtifactFiles": self._create_files,
            "CommitArtifact": self._commit,
        }
        named = re.match(r"\s*mutation (\w+)", query)
        answer = operations.get(named[1] if named else "")
        return answer(variables, server_url) if answer else None

    def put(self, path: str, content: bytes) -> bool:
        """Keep a file put at /artifact/NUMBER/NAME or the manifest at /manifest/NUMBER; False for another path."""
        place = re.fullmatch(r"/(artifact|manifest)/(\d+)(?:/(.+))?", path)
        if place is None:
            return False
        artifact = self.artifacts[int(place[2])]
        if place[1] == "manifest":
            artifact.manifest = json.loads(content)
        else:
            artifact.files[place[3]] = content
        return True

    def get(self, path: str) -> bytes | None:
        """What was put at `path`, None for another path."""
        place = re.fullmatch(r"/(artifact|manifest)/(\d+)(?:/(.+))?", path)
        if place is None:
            return None
        artifact = self.artifacts[int(place[2])]
        return json.dumps(artifact.manifest).encode() if place[1] == "manifest" else artifact.files[place[3]]

    def _create(self, variables: dict[str, Any], _url: str) -> dict[str, Any]:
        given = variables["input"]
        self.artifacts.append(
            ServedArtifact(
                name=given["artifactCollectionName"],
                kind=given["artifactTypeName"],
                run_id=given["runName"],
                aliases=[alias["alias"] for alias in given.get("aliases") or []],
                metadata=json.loads(given.get("metadata") or "{}"),
            )
        )
        number = len(self.artifacts) - 1
        sequence = {"id": "sequence", "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": _id(number), "state": "PENDING", "artifactSequence": sequence}}}

    def _create_manifest(self, variables: dict[str, Any], url: str) -> dict[str, Any]:
        return {"createArtifactManifest": {"artifactManifest": _manifest(_number(variables["artifactID"]), url)}}

    def _update_manifest(self, variables: dict[str, Any], url: str) -> dict[str, Any]:
        manifest = _manifest(_number(variables["artifactManifestID"]), url)
        return {"updateArtifactManifest": {"artifactManifest": manifest}}

    def _create_files(self, variables: dict[str, Any], url: str) -> dict[str, Any]:
        edges = []
        for file in variables["input"]["artifactFiles"]:
            number = _number(file["artifactID"])
            node = {
                "storagePath": f"storage/{file['name']}",
                "uploadUrl": f"{url}/artifact/{number}/{file['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit(self, variables: dict[str, Any], _url: str) -> dict[str, Any]:
        self.artifacts[_number(variables["artifactID"])].committed = True
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "digest"}}}


def _manifest(number: int, url: str) -> dict[str, Any]:
    file = {"id": _id(number), "uploadUrl": f"{url}/manifest/{number}", "uploadHeaders": []}
    return {"id": _id(number), "file": file}


def _id(number: int) -> str:
    return base64.b64encode(f"artifact:{number}".encode()).decode()


def _number(identifier: str) -> int:
    return int(base64.b64decode(identifier).decode().partition(":")[2])
