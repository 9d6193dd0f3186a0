"""Speaks JSON over HTTP with a key, here because the standard client has neither retries nor a way to keep a key in."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tune_cifar.publish.retry import BUSY_STATUSES, PublishError, TransientError, parse_retry_after

PAPERSPACE_URL = "https://api.paperspace.com/v1"


@dataclass(frozen=True)
class JsonApi:
    """An API under `base_url` that takes a bearer token; a server silent for `reply_seconds` is given up."""

    base_url: str
    key: str
    reply_seconds: float

    def __repr__(self) -> str:
        return f"JsonApi({self.base_url!r})"

    def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The reply as a dict; raises `TransientError` for what may pass, `PublishError` for the rest."""
        url = f"{self.base_url.rstrip('/')}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - http(s) is checked before
        # A redirect would carry the key to another host.
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=self.reply_seconds) as response:
                reply = json.load(response)
        except urllib.error.HTTPError as error:
            raise _status_error(error, f"{method} {url}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise TransientError(f"{method} {url}: {str(reason) or type(reason).__name__}") from None
        except ValueError:
            raise PublishError(f"{method} {url}: the reply is no JSON") from None
        if not isinstance(reply, dict):
            raise PublishError(f"{method} {url}: the reply is not what the API is documented to send")
        return reply


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _status_error(error: urllib.error.HTTPError, what: str) -> PublishError:
    try:
        with error:
            message = str(json.load(error)["message"])
    except (ValueError, TypeError, KeyError, OSError, http.client.HTTPException):
        message = error.reason
    text = f"{what}: {error.code} {message}"
    if error.code in BUSY_STATUSES:
        return TransientError(text, parse_retry_after(error.headers.get("Retry-After")), error.code)
    return PublishError(text, error.code)
