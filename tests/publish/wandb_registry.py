"""The part of the loopback W&B server that only publishing needs: artifacts read back, and links into a registry."""

from __future__ import annotations

import json
from typing import Any

from tests.tracking.wandb_artifacts import ArtifactStore


class RegistryStore(ArtifactStore):
    """An artifact store that also answers for finished artifacts and gives the first one back.

    `links` holds what was linked where.
    """

    def __init__(self) -> None:
        super().__init__()
        self.links: list[dict[str, Any]] = []

    def graphql(self, query: str, variables: dict[str, Any], server_url: str) -> dict[str, Any] | None:
        if "query ArtifactType" in query:
            return {"project": {"artifact": None}}
        if "query ArtifactByID" in query:
            return {"artifact": self._fragment(variables["id"])}
        if "query GetDefaultEntity" in query:
            return {"viewer": {"id": "v", "entity": "tester"}}
        if "query ArtifactMembershipByName" in query:
            return {"project": self._named(variables)}
        if "query FetchArtifactManifest" in query:
            return {"artifact": {"currentManifest": {"file": {"directUrl": f"{server_url}/manifest/0"}}}}
        if "query GetArtifactMembershipFileUrls" in query:
            nodes = [
                {"__typename": "File", "name": name, "directUrl": f"{server_url}/artifact/0/{name}"}
                for name in self.artifacts[0].files
            ]
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            files = {"pageInfo": page, "edges": [{"node": node} for node in nodes]}
            collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
            return {"project": {"artifactCollection": collection}}
        if "mutation LinkArtifact" in query:
            self.links.append(variables["input"])
            place = self._collection("ArtifactPortfolio", variables["input"]["projectName"])
            membership = self._membership(place, variables["input"]["artifactID"])
            return {"result": {"versionIndex": 0, "artifactMembership": membership}}
        if "FetchOrgInfoFromEntity" in query:
            organization = {"name": "org", "orgEntity": {"name": "org-entity"}}
            return {"entity": {"organization": organization, "user": None}}
        return super().graphql(query, variables, server_url)

    def _named(self, variables: dict[str, Any]) -> dict[str, Any]:
        name, _, alias = variables["name"].partition(":")
        artifact = self.artifacts[0]
        if name != artifact.name or alias not in ("v0", *artifact.aliases):
            return {"artifactCollectionMembership": None}
        place = self._collection("ArtifactSequence", variables["project"])
        return {"artifactCollectionMembership": self._membership(place, "YXJ0aWZhY3Q6MA==")}

    def _membership(self, collection: dict[str, Any], artifact_id: str) -> dict[str, Any]:
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": "bWVtYmVy",
            "versionIndex": 0,
            "createdAt": "2026-01-01T00:00:00",
            "aliases": [],
            "artifactCollection": collection,
            "artifact": self._fragment(artifact_id),
        }

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
