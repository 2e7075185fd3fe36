"""The api for tests: a real uvicorn on a real socket, and a client that holds every answer to the OpenAPI document."""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Generator
from typing import Any

import httpx2
import jsonschema_rs
import pytest
import uvicorn

from api.app import Api, create_app
from runtime.settings import settings

STARTS_WITHIN_S = 20
ANSWERS_WITHIN_S = 15


class Served:
    """A running app, in a thread of its own with its own event loop."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("BURSAR_DATABASE_URL", database_url)
            environment.setenv("BURSAR_REDIS_URL", redis_url)
            settings.cache_clear()
            self.app: Api = create_app()
            # Named as TCP, so that asyncio sets TCP_NODELAY: else every other answer takes 40 ms.
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            self._socket.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
            config = uvicorn.Config(self.app, http="httptools", log_config=None, access_log=False, server_header=False)
            self._server = uvicorn.Server(config)
            self._thread = threading.Thread(target=self._run, name="api", daemon=True)
            self._thread.start()
            deadline = time.monotonic() + STARTS_WITHIN_S
            while not self._server.started:
                assert self._thread.is_alive(), "the api did not start"
                assert time.monotonic() < deadline, "the api took too long to start"
                time.sleep(0.01)
        settings.cache_clear()
        with httpx2.Client(base_url=self.url) as client:
            self.document: dict[str, Any] = client.get("/openapi.json").json()
        self._validators: dict[str, Any] = {}

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=STARTS_WITHIN_S)
        assert not self._thread.is_alive(), "the api did not stop"
        self._socket.close()

    def client(self, key: str | None = None, **headers: str) -> httpx2.Client:
        """A client whose every answer is checked against the document."""
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        hooks = {"response": [self._check]}
        return httpx2.Client(base_url=self.url, headers=headers, event_hooks=hooks, timeout=ANSWERS_WITHIN_S)

    def _check(self, response: httpx2.Response) -> None:
        response.read()
        assert response.headers["request-id"]
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            self._validate("#/components/schemas/Problem", response.json())
            return
        path = response.request.url.path
        for template, operations in self.document["paths"].items():
            if not re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                continue
            operation = operations.get(response.request.method.lower())
            if operation is None or response.status_code == 304:
                continue
            documented = operation["responses"][str(response.status_code)].get("content", {})
            schema = documented.get(response.headers.get("content-type", "").partition(";")[0], {}).get("schema", {})
            if "$ref" in schema:
                self._validate(schema["$ref"], response.json())

    def _validate(self, reference: str, value: object) -> None:
        validator = self._validators.get(reference)
        if validator is None:
            schema = {"$ref": reference, "components": self.document["components"]}
            validator = self._validators[reference] = jsonschema_rs.validator_for(schema)
        validator.validate(value)


@contextlib.contextmanager
def served(database_url: str, redis_url: str) -> Generator[Served]:
    api = Served(database_url, redis_url)
    try:
        yield api
    finally:
        api.stop()


def code(response: httpx2.Response) -> str:
    """`404 wallet_not_found`: what a problem comes to."""
    return f"{response.status_code} {response.json()['code']}"
