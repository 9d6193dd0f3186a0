"""The stores that a model is published to, each as far as its real client needs it, on the loopback."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from tests.publish.loopback import LoopbackServer, Reply, Request, json_reply

PAPERSPACE_KEY = "planted-paperspace-key"
HUB_KEY = "hf_plantedplantedplanted"


class S3Proxy(LoopbackServer):
    """Hands every request on to a real S3 imitation, unless a fault is planned."""

    def __init__(self, backend_port: int) -> None:
        super().__init__()
        self.backend_port = backend_port

    def answer(self, request: Request) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.backend_port, timeout=30)
        headers = {name: value for name, value in request.headers.items() if name not in ("connection", "expect")}
        headers.pop("transfer-encoding", None)
        headers["content-length"] = str(len(request.body))
        connection.request(request.method, request.target, request.body, headers)
        response = connection.getresponse()
        kept = {name: value for name, value in response.getheaders() if name.lower() not in ("connection", "date")}
        kept.pop("Transfer-Encoding", None)
        reply = Reply(response.status, response.read(), kept)
        connection.close()
        return reply


@dataclass
class GradientModel:
    name: str
    notes: str
    project_id: str
    model_type: str
    files: dict[str, bytes] = field(default_factory=dict)


class GradientServer(LoopbackServer):
    """Paperspace's legacy API and the store behind its presigned addresses. `lie_bytes` is added to every size."""

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, GradientModel] = {}
        self.lie_bytes = 0

    def answer(self, request: Request) -> Reply:
        if request.path.startswith("/store/"):
            return self._store(request)
        if request.headers.get("x-api-key") != PAPERSPACE_KEY:
            return json_reply({"status": 400, "message": "Invalid API token"}, status=400)
        match request.method, request.path.rstrip("/"):
            case "POST", "/mlModels/createModelV2":
                query = request.query
                model_id = f"mo{len(self.asked('POST /mlModels/createModelV2'))}"
                self.models[model_id] = GradientModel(
                    query["name"], query.get("notes", ""), query["projectId"], query["modelType"]
                )
                return json_reply({"id": model_id, "name": query["name"]})
            case "GET", "/mlModels/getPresignedModelUrl":
                place = f"{request.query['modelHandle']}/{request.query['fileName']}"
                return json_reply(f"{self.url}/store/{place}?X-Amz-Signature=planted-signature")
            case "POST", "/mlModels/deleteModel":
                self.models.pop(request.json()["id"])
                return json_reply({})
            case "GET", "/mlModels/getModelList":
                return json_reply({"modelList": [self._listed(key, model) for key, model in self.models.items()]})
            case "GET", "/mlModels/listFiles":
                model_id = request.json()["id"]
                files = self.models[model_id].files.items()
                return json_reply(
                    [
                        {
                            "file": name,
                            "url": f"{self.url}/store/{model_id}/{name}?X-Amz-Signature=planted-signature",
                            "size": len(content) + self.lie_bytes,
                        }
                        for name, content in files
                    ]
                )
        return json_reply({"message": "no such place"}, status=404)

    def _listed(self, model_id: str, model: GradientModel) -> dict[str, Any]:
        return {
            "id": model_id,
            "name": model.name,
            "notes": model.notes,
            "projectId": model.project_id,
            "modelType": model.model_type,
        }

    def _store(self, request: Request) -> Reply:
        _, _, model_id, name = request.path.split("/")
        if request.query.get("X-Amz-Signature") != "planted-signature":
            return Reply(403)
        if request.method == "PUT":
            self.models[model_id].files[name] = request.body
            return Reply()
        return Reply(200, self.models[model_id].files[name])


class PaperspaceServer(LoopbackServer):
    """Paperspace's v1 API: model records, two a page."""

    def __init__(self) -> None:
        super().__init__()
        self.models: list[dict[str, Any]] = [
            {"id": f"other{n}", "name": "other", "description": None} for n in (1, 2, 3)
        ]

    def answer(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {PAPERSPACE_KEY}":
            return json_reply({"code": "UNAUTHORIZED", "message": "Invalid API key"}, status=401)
        match request.method, request.path:
            case "POST", "/v1/models":
                self.models.append({"id": f"m{len(self.models)}", **request.json()})
                return json_reply(self.models[-1], status=201)
            case "GET", "/v1/models":
                start = int(request.query.get("after", 0))
                page = self.models[start : start + 2]
                more = start + 2 < len(self.models)
                return json_reply({"hasMore": more, "items": page} | ({"nextPage": str(start + 2)} if more else {}))
        return json_reply({"code": "NOT_FOUND", "message": "no such place"}, status=404)


class HubServer(LoopbackServer):
    """The Hugging Face Hub for one repository: preupload, LFS batch, LFS files, commit, file list, files."""

    def __init__(self) -> None:
        super().__init__()
        self.visibility = ""
        self.commits: list[str] = ["0" * 40]
        self.large: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}

    def answer(self, request: Request) -> Reply:
        if request.path.startswith("/lfs/"):
            self.large[request.path.removeprefix("/lfs/")] = request.body
            return Reply()
        may_all_read = self.visibility == "public" and request.method in ("GET", "HEAD")
        if request.headers.get("authorization") != f"Bearer {HUB_KEY}" and not may_all_read:
            return json_reply({"error": "Invalid credentials in Authorization header"}, status=401)
        place = f"{request.method} {request.path}"
        repository = "/api/models/team/resnet"
        if place == "POST /api/repos/create":
            self.visibility = request.json()["visibility"]
            return json_reply({"url": f"{self.url}/team/resnet"})
        if place in (f"GET {repository}", f"GET {repository}/revision/main"):
            return json_reply({"id": "team/resnet", "modelId": "team/resnet", "sha": self.commits[-1]})
        if request.path.startswith("/team/resnet/resolve/"):
            return self._file(request)
        if place == "POST /api/validate-yaml":
            return json_reply({"errors": [], "warnings": []})
        if place == f"POST {repository}/preupload/main":
            return json_reply({"files": [self._preupload(file) for file in request.json()["files"]]})
        if place == "POST /team/resnet.git/info/lfs/objects/batch":
            actions = [self._action(wanted) for wanted in request.json()["objects"]]
            return json_reply({"transfer": "basic", "objects": actions})
        if place == f"POST {repository}/commit/main":
            return self._commit(request)
        if place == f"POST {repository}/paths-info/main":
            asked = [value for key, value in parse_qsl(request.body.decode()) if key == "paths"]
            names = [name for name in asked if name in self.files]
            return json_reply(
                [{"type": "file", "path": name, "oid": "x", "size": len(self.files[name])} for name in names]
            )
        return json_reply({"error": f"no such place: {place}"}, status=404)

    def _file(self, request: Request) -> Reply:
        _, _, _, _, commit, name = request.path.split("/")
        if commit not in self.commits or name not in self.files:
            return Reply(404, headers={"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(self.files[name]).hexdigest()
        return Reply(200, self.files[name], {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})

    def _preupload(self, file: dict[str, Any]) -> dict[str, Any]:
        is_large = file["path"].endswith((".pth", ".safetensors"))
        content = self.files.get(file["path"])
        oid = None
        if content is not None:
            header = b"" if is_large else f"blob {len(content)}\0".encode()
            oid = hashlib.new("sha256" if is_large else "sha1", header + content).hexdigest()
        mode = "lfs" if is_large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.url}/lfs/{wanted['oid']}"}
        return {"oid": wanted["oid"], "size": wanted["size"], "actions": {"upload": upload}}

    def _commit(self, request: Request) -> Reply:
        for line in map(json.loads, request.body.splitlines()):
            value = line["value"]
            if line["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
        self.commits.append(f"{len(self.commits):040d}")
        address = f"{self.url}/team/resnet/commit/{self.commits[-1]}"
        return json_reply({"success": True, "commitUrl": address, "commitOid": self.commits[-1]})


class GoogleStorageServer(LoopbackServer):
    """Google Cloud Storage's JSON API for one bucket: resumable uploads, reads, metadata, deletion."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}

    def answer(self, request: Request) -> Reply:
        if not request.headers.get("authorization", "").startswith("Bearer "):
            return json_reply({"error": {"code": 401, "message": "no key"}}, status=401)
        if request.path.startswith("/upload/"):
            return self._upload(request)
        name = request.path.removeprefix("/storage/v1/b/bucket/o").removeprefix("/bucket").removeprefix("/")
        if not name:
            return json_reply({"kind": "storage#objects", "items": []})
        if name not in self.objects:
            return json_reply({"error": {"code": 404, "message": "No such object"}}, status=404)
        if request.method == "DELETE":
            del self.objects[name]
            return Reply(204)
        is_content = request.query.get("alt") == "media" or not request.path.startswith("/storage/")
        return Reply(200, self.objects[name]) if is_content else self._metadata(name)

    def _upload(self, request: Request) -> Reply:
        if request.method == "POST":
            name = request.query.get("name") or request.json()["name"]
            return Reply(200, headers={"Location": f"{self.url}/upload/{name}"})
        name = request.path.removeprefix("/upload/")
        first, _, last = request.headers["content-range"].removeprefix("bytes ").partition("/")
        start = 0 if first.startswith("*") else int(first.partition("-")[0])
        self.objects[name] = self.objects.get(name, b"")[:start] + request.body
        if last == "*":
            size = len(self.objects[name])
            return Reply(308, headers={"Range": f"bytes=0-{size - 1}"} if size else {})
        return self._metadata(name)

    def _metadata(self, name: str) -> Reply:
        content = {"kind": "storage#object", "bucket": "bucket", "name": name, "generation": "1"}
        return json_reply({**content, "size": str(len(self.objects[name]))})
