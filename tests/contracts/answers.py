"""Every answer of the command routes, held to the OpenAPI document that the api itself serves."""

import json
from typing import Any

import httpx2
import jsonschema_rs

PROBLEM = "application/problem+json"


class Contract:
    """The document, once loaded, and validators made from it."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self._validators: dict[str, Any] = {}

    def load(self, document: dict[str, Any]) -> None:
        self.document = document
        self._validators.clear()

    def check(self, response: httpx2.Response) -> None:
        """Fails where the document does not promise this answer: its status, headers, media type and body."""
        response.read()
        method, path = response.request.method, response.request.url.path
        self.check_parts(method, path, response.status_code, dict(response.headers), response.content)

    def check_parts(self, method: str, path: str, status: int, headers: dict[str, str], content: bytes) -> None:
        assert headers["request-id"]
        if status >= 400:
            assert status < 500, content
            assert headers["content-type"] == PROBLEM
        operation = self.document["paths"].get(_template(method, path), {}).get(method.lower())
        if operation is None:
            assert status in (404, 405) or method == "HEAD" or not path.startswith("/v1/commands")
            return
        promised = operation["responses"].get(str(status))
        assert promised is not None, f"{method} {path} answered {status}, which is not in the document: {content!r}"
        for name, header in promised.get("headers", {}).items():
            value = headers.get(name.lower())
            assert value is not None or not header.get("required"), f"{method} {path} {status} lacks {name}"
            if value is not None:
                self._validate(header["schema"], value)
        schema = promised["content"][headers["content-type"]]["schema"]
        body = json.loads(content)
        self._validate(schema, body)
        if status >= 400:
            assert (body["status"], body["request_id"]) == (status, headers["request-id"])
            assert body["instance"] == path or not path.isprintable()  # line ends are not told back
            assert body["type"] == f"/problems/{body['code']}"

    def _validate(self, schema: dict[str, Any], value: object) -> None:
        key = json.dumps(schema)
        validator = self._validators.get(key)
        if validator is None:
            whole = {**schema, "components": self.document["components"]}
            validator = self._validators[key] = jsonschema_rs.validator_for(whole, validate_formats=True)
        validator.validate(value)


def _template(method: str, path: str) -> str:
    """The path as the document spells it. `GET /v1/commands/batch` asks for a command of that id."""
    if not path.startswith("/v1/commands/") or (path in _NAMED and method != "GET"):
        return path
    deed = path.rpartition("/")[2]
    return f"/v1/commands/{{id}}/{deed}" if deed in ("cancel", "receipt") else "/v1/commands/{id}"


_NAMED = tuple(f"/v1/commands/{name}" for name in ("batch", "batch/preview", "cancel", "preview"))
