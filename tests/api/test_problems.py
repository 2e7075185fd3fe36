"""Every error is a problem, whoever raises it: routes, frameworks, drivers, or a defect."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from api.problems import KINDS
from api.routes import wallets
from bursar.local.postgres import Postgres
from bursar.local.valkey import Valkey
from ledger import db
from ledger.keys import Scope, create_key
from tests.api.serving import Served, code, served


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/wallets/", "/v2/wallets", "/v1/wallets/a/b", "/docs/static/x"])
def test_nothing_here(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    assert code(answer) == "404 not_found"
    assert answer.json()["instance"] == path


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v1/wallets/alice", {"GET", "PUT"}),
        ("PUT", "/v1/assets", {"GET", "POST"}),
        ("GET", "/v1/assets/gold/freeze", {"POST"}),
        ("POST", "/v1/wallets", {"GET"}),
        ("OPTIONS", "/v1/wallets", {"GET"}),
        ("PATCH", "/v1/supply", {"GET"}),
        ("DELETE", "/v1/commands", {"GET", "HEAD", "POST"}),
    ],
)
def test_a_method_that_does_not_apply(client: httpx2.Client, method: str, path: str, allow: set[str]) -> None:
    answer = client.request(method, path)
    assert code(answer) == "405 method_not_allowed"
    assert set(answer.headers["allow"].split(", ")) == allow


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "application/jsonx"],
)
def test_a_body_that_is_not_said_to_be_json(client: httpx2.Client, content_type: str) -> None:
    answer = client.put("/v1/wallets/a", content=b"{}", headers={"Content-Type": content_type})
    assert code(answer) == "415 unsupported_media_type"


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
def test_ways_to_say_json(client: httpx2.Client, content_type: str) -> None:
    answer = client.put("/v1/wallets/a", content=b"{}", headers={"Content-Type": content_type})
    assert answer.is_success


# --- the size of a body --------------------------------------------------------------------------------------------

MEBIBYTE = 1024 * 1024


def test_a_body_declared_too_large_is_refused_before_it_is_sent(api: Served) -> None:
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2])), timeout=5) as connection:
        connection.sendall(b"PUT /v1/wallets/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MEBIBYTE + 1))
        answer = b""
        while chunk := connection.recv(65536):  # ends because the server closes
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in answer
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize(("size", "expected"), [(MEBIBYTE, "400 malformed_json"), (MEBIBYTE + 1, "413 body_too_large")])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_counted_as_it_arrives(client: httpx2.Client, size: int, expected: str, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, size, 65536):
            yield b" " * min(65536, size - start)

    content: Any = chunks() if chunked else b" " * size
    answer = client.put("/v1/wallets/a", content=content, headers={"Content-Type": "application/json"})
    assert code(answer) == expected


def test_a_client_that_hangs_up_in_mid_body_harms_nobody(api: Served, client: httpx2.Client) -> None:
    key = client.headers["authorization"].encode()
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2])), timeout=5) as connection:
        connection.sendall(
            b"PUT /v1/wallets/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: %s\r\n"
            b'Content-Length: 100\r\n\r\n{"name' % key
        )
    assert client.get("/v1/wallets").status_code == 200


# --- what is on every answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sane", ["a", "0af7651916cd43dd8448eb211c80319c", "Root=1-67891233-abcdef", "x" * 128])
def test_a_request_id_comes_back(client: httpx2.Client, sane: str) -> None:
    for path in ("/v1/wallets", "/nowhere"):
        answer = client.get(path, headers={"Request-Id": sane})
        assert answer.headers["request-id"] == sane
    assert answer.json()["request_id"] == sane


@pytest.mark.parametrize("odd", ["", "x" * 129, "a b", 'a"b', "a,b", "é".encode(), b"\xff"])
def test_an_odd_request_id_is_replaced(client: httpx2.Client, odd: str | bytes) -> None:
    answer = client.get("/nowhere", headers={b"Request-Id": odd if isinstance(odd, bytes) else odd.encode()})
    given = answer.headers["request-id"]
    assert given == answer.json()["request_id"]
    assert given.isascii()
    assert 1 <= len(given) <= 64


def test_request_ids_differ(client: httpx2.Client) -> None:
    assert len({client.get("/livez").headers["request-id"] for _ in range(50)}) == 50


def test_answers_are_what_they_say_they_are(client: httpx2.Client) -> None:
    for path in ("/v1/wallets", "/nowhere", "/docs", "/livez"):
        assert client.get(path).headers["x-content-type-options"] == "nosniff"


def test_the_type_of_a_problem_leads_somewhere(client: httpx2.Client) -> None:
    problem = client.get("/v1/wallets/nobody").json()
    told = client.get(problem["type"]).json()
    assert (told["code"], told["status"], told["title"]) == (problem["code"], problem["status"], problem["title"])
    assert code(client.get("/problems/nothing")) == "404 not_found"


def test_the_table_is_whole() -> None:
    for name, kind in KINDS.items():
        assert name.replace("_", "").isalpha()
        assert 400 <= kind.status <= 599
        assert kind.retryable == (kind.status >= 500 or kind.status == 429 or name == "command_pending"), name


# --- defects and outages -------------------------------------------------------------------------------------------


def test_a_defect_is_told_without_its_details(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def defect(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(wallets.reads, "wallets", defect)
    answer = client.get("/v1/wallets", headers={"Request-Id": "find-me"})
    assert code(answer) == "500 internal_error"
    assert "secret" not in answer.text
    assert "find-me" in answer.json()["detail"]
    assert answer.json()["retryable"]


@pytest.fixture
def away(own_postgres: Postgres, valkey: Valkey) -> Iterator[tuple[Postgres, httpx2.Client]]:
    """A PostgreSQL to take away, and a client of an api on it that has used its key."""
    engine = db.engine(own_postgres.url, application="test-keys")
    key = create_key(engine, env="test", client="x", scopes=[Scope.ADMIN])
    engine.dispose()
    with served(own_postgres.url, valkey.url) as api, api.client(key) as client:
        assert client.get("/v1/wallets").status_code == 200
        assert client.get("/readyz").json()["status"] == "ready"
        yield own_postgres, client


def test_postgresql_away_and_back(away: tuple[Postgres, httpx2.Client]) -> None:
    postgres, client = away
    postgres.stop_immediately()
    for path in ("/v1/wallets", "/v1/wallets/a", "/v1/assets", "/readyz"):
        answer = client.get(path)
        assert code(answer) == "503 database_unavailable", path
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["retryable"]
    assert code(client.put("/v1/wallets/a", json={})) == "503 database_unavailable"
    assert client.get("/livez").status_code == 200
    figures = client.get("/metrics")
    assert figures.status_code == 200
    assert "bursar_database_up 0.0" in figures.text
    assert "bursar_pending_commands NaN" in figures.text
    postgres.start()
    assert client.get("/v1/wallets").status_code == 200
    assert client.get("/readyz").status_code == 200
