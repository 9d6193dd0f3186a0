"""The part of the loopback W&B server that only publishing needs: artifacts read back, and links into a registry."""

from __future__ import annotations

import json
from typing import Any

from tests.tracking.wandb_artifacts import ArtifactStore


class RegistryStore(ArtifactStore):
    """An artifact store that also answers for finished artifacts; `links` holds what was linked where."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[dict[str, Any]] = []

    def graphql(self, query: str, variables: dict[str, Any], server_url: str) -> dict[str, Any] | None:
        if "query ArtifactType" in query:
            return {"project": {"artifact": None}}
        if "query ArtifactByID" in query:
            return {"artifact": self._fragment(variables["id"])}
        if "mutation LinkArtifact" in query:
            self.links.append(variables["input"])
            membership = {
                "__typename": "ArtifactCollectionMembership",
                "id": "bWVtYmVy",
                "versionIndex": 0,
                "createdAt": "2026-01-01T00:00:00",
                "aliases": [],
                "artifactCollection": self._collection("ArtifactPortfolio", variables["input"]["projectName"]),
                "artifact": self._fragment(variables["input"]["artifactID"]),
            }
            return {"result": {"versionIndex": 0, "artifactMembership": membership}}
        if "FetchOrgInfoFromEntity" in query:
            organization = {"name": "org", "orgEntity": {"name": "org-entity"}}
            return {"entity": {"organization": organization, "user": None}}
        return super().graphql(query, variables, server_url)

    def _fragment(self, identifier: str) -> dict[str, Any]:
        artifact = self.artifacts[-1]
        return {
            "__typename": "Artifact",
            "id": identifier,
            "artifactSequence": self._collection("ArtifactSequence", "cifar"),
            "versionIndex": 0,
            "artifactType": {"name": artifact.kind},
            "description": None,
            "metadata": json.dumps(artifact.metadata),
            "ttlDurationSeconds": -1,
            "ttlIsInherited": False,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED",
            "size": 1,
            "digest": "digest",
            "commitHash": None,
            "fileCount": len(artifact.files),
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": None,
            "aliases": [],
        }

    def _collection(self, kind: str, project: str) -> dict[str, Any]:
        place = {"id": "cA==", "internalId": "cA==", "name": project, "entity": {"name": "tester"}}
        return {"__typename": kind, "name": self.artifacts[-1].name, "project": place}
