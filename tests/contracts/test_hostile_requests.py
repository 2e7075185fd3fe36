"""Requests that no well-behaved client sends: methods, media types, encodings, sizes, headers, broken-off bodies."""

import gzip
import json
import time
import zlib

import pytest

from api.edge import BODY_MAX_BYTES
from tests.contracts.caller import GOLD, Caller, Headers, Raw, nothing_stored, order, refusal, unique

JSON = ("Content-Type", "application/json")


def good(wallet: str = "w") -> bytes:
    return json.dumps(order("top_up", wallet, "1")).encode()


def keyed(*headers: tuple[str, str | bytes]) -> Headers:
    return [("Idempotency-Key", unique("key")), *headers]


def posted(
    game: Caller, *headers: tuple[str, str | bytes], body: bytes | None = None, path: str = "/v1/commands"
) -> Raw:
    return game.raw("POST", path, keyed(*headers), good() if body is None else body)


# --- methods and paths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/commands", "GET, HEAD, POST"), ("/v1/commands/batch", "GET, HEAD, POST"), ("/v1/commands/x", "GET, HEAD")],
)
def test_methods_that_do_not_apply(game: Caller, method: str, path: str, allowed: str) -> None:
    with nothing_stored(game.service):
        answer = game.raw(method, path, keyed(JSON), good())
    assert (answer.status, answer.json()["code"], answer.headers["allow"]) == (405, "method_not_allowed", allowed)


def test_a_post_to_one_command_does_not_apply(game: Caller) -> None:
    answer = posted(game, JSON, path="/v1/commands/01a1fc83-da54-8c0d-8000-000000000001")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_a_body(game: Caller, rich: str) -> None:
    command = game.do("spend", rich, "1")
    for path, status in (
        (f"/v1/commands/{command['id']}", 200),
        (f"/v1/commands?idempotency_key={command['idempotency_key']}", 200),
        ("/v1/commands/x", 404),
        ("/v1/commands", 422),
    ):
        head, get = game.http.head(path), game.http.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"") == (status, b"")
        assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    "path", ["/v1/commands/", "//v1/commands", "/v1//commands", "/V1/commands", "/v1/commands/batch/", "/v1"]
)
def test_only_the_exact_path_takes_commands(game: Caller, path: str) -> None:
    with nothing_stored(game.service):
        assert posted(game, JSON, path=path).status in (404, 405)


def test_a_query_changes_nothing(game: Caller) -> None:
    assert posted(game, JSON, path="/v1/commands?dry_run=1", body=good(unique("player"))).status == 202


# --- media types and encodings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "media_type",
    [
        *("text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""),
        *("application/jsonp", "application/json-patch+json", "application/problem+json", "json", "*/*", "text/json"),
        *("application/json; charset=utf-16", "application/json; charset=latin-1", "application/json; profile=x"),
        *("application/json, text/plain", "application/json\xff", "application/json;;x", "a" * 4_000),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_not_json_by_its_own_word(game: Caller, media_type: str) -> None:
    with nothing_stored(game.service):
        for path in ("/v1/commands", "/v1/commands/batch"):
            answer = posted(game, ("Content-Type", media_type.encode("latin-1")), path=path)
            assert refusal(answer) == "415 unsupported_media_type"


def test_a_media_type_is_required(game: Caller) -> None:
    with nothing_stored(game.service):
        assert refusal(posted(game)) == "415 unsupported_media_type"


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json; charset=utf-8",
        "Application/JSON;charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json;",
    ],
)
def test_json_by_other_spellings(game: Caller, media_type: str) -> None:
    assert posted(game, ("Content-Type", media_type), body=good(unique("player"))).status == 202


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
def test_packed_bodies_are_not_unpacked(game: Caller, encoding: str) -> None:
    packed = zlib.compress(good()) if encoding == "deflate" else gzip.compress(good())
    with nothing_stored(game.service):
        assert refusal(posted(game, JSON, ("Content-Encoding", encoding), body=packed)) == "400 malformed_json"


# --- sizes ---------------------------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    """A good body of so many bytes: JSON may have spaces around it."""
    body = good(unique("player"))
    return body + b" " * (size - len(body))


def chunked(body: bytes, *, chunk: int = 65_536) -> bytes:
    parts = (body[start : start + chunk] for start in range(0, len(body), chunk))
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CHUNKED = ("Transfer-Encoding", "chunked")


@pytest.mark.parametrize("path", ["/v1/commands", "/v1/commands/batch"])
def test_a_body_has_a_size(game: Caller, path: str) -> None:
    with nothing_stored(game.service):
        for size in (BODY_MAX_BYTES + 1, 8 * BODY_MAX_BYTES):
            assert refusal(posted(game, JSON, body=padded(size), path=path)) == "413 body_too_large"
            sent = chunked(padded(size))
            answer = game.raw("POST", path, keyed(JSON, CHUNKED), sent, declare_length=False)
            assert refusal(answer) == "413 body_too_large"


def test_the_largest_body_goes_through(game: Caller) -> None:
    assert posted(game, JSON, body=padded(BODY_MAX_BYTES)).status == 202
    sent = chunked(padded(BODY_MAX_BYTES))
    assert game.raw("POST", "/v1/commands", keyed(JSON, CHUNKED), sent, declare_length=False).status == 202


def test_a_size_that_is_only_declared_is_refused_before_it_comes(game: Caller) -> None:
    for declared in (BODY_MAX_BYTES + 1, 10**12, 2**63):
        headers = keyed(JSON, ("Content-Length", str(declared)))
        answer = game.raw("POST", "/v1/commands", headers, b"{", declare_length=False)
        assert refusal(answer) == "413 body_too_large"
        assert answer.headers["connection"] == "close"


def test_chunks_of_one_byte_are_read(game: Caller) -> None:
    sent = chunked(good(unique("player")), chunk=1)
    assert game.raw("POST", "/v1/commands", keyed(JSON, CHUNKED), sent, declare_length=False).status == 202


# --- framing -------------------------------------------------------------------------------------------------------


def head(game: Caller, *lines: str) -> bytes:
    common = [
        f"Authorization: Bearer {game.api_key}",
        f"Idempotency-Key: {unique('key')}",
        "Content-Type: application/json",
    ]
    return "\r\n".join(["POST /v1/commands HTTP/1.1", "Host: bursar", *common, *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: -1"],
        ["Content-Length: +63"],
        ["Content-Length: 1e2"],
        ["Content-Length: 6_3"],
        ["Content-Length: 63", "Content-Length: 64"],
        ["Content-Length: 63", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked, x"],
        ["Content-Length : 63"],
        ["Content-Length: 99999999999999999999999999"],
    ],
    ids=lambda lines: ", ".join(lines),
)
def test_framing_that_is_ambiguous_is_refused(game: Caller, lines: list[str]) -> None:
    with nothing_stored(game.service):
        answer = game.speak(head(game, *lines) + good())
        assert answer.startswith(b"HTTP/1.1 4") or answer == b""


def test_a_body_that_breaks_off_stores_nothing(game: Caller) -> None:
    body = good()
    with nothing_stored(game.service):
        for sent in (b"", body[:10], body[:-1]):
            game.hang_up(head(game, f"Content-Length: {len(body)}") + sent)
            game.hang_up(head(game, "Transfer-Encoding: chunked") + b"%x\r\n" % len(body) + sent)
        time.sleep(0.2)  # nothing comes that one could wait for
    assert game.http.get("/livez").status_code == 200


def test_a_body_in_drops_is_read(game: Caller) -> None:
    body = good(unique("player"))
    request = head(game, f"Content-Length: {len(body)}", "Connection: close")
    answer = game.speak(request, *(body[n : n + 8] for n in range(0, len(body), 8)))
    assert answer.startswith(b"HTTP/1.1 202")


def test_pipelined_requests_are_answered_in_order(game: Caller) -> None:
    bodies = [good(unique("player")) for _ in range(3)]
    requests = [head(game, f"Content-Length: {len(body)}") + body for body in bodies]
    answer = game.speak(b"".join(requests))
    wallets = [json.loads(body)["wallet"] for body in bodies]
    assert answer.count(b"HTTP/1.1 202") == 3
    places = [answer.index(f'"{wallet}"'.encode()) for wallet in wallets]
    assert places == sorted(places)


# --- headers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"a b", b"a\tb", b"\xff", b"r" * 129, b'"r"', b"<script>", b"a;b"])
def test_a_request_id_that_plays_tricks_is_replaced(game: Caller, sent: bytes) -> None:
    answer = posted(game, JSON, ("Request-Id", sent), body=good(unique("player")))
    assert answer.status == 202
    assert answer.headers["request-id"].encode("latin-1") != sent


def test_a_request_id_comes_back(game: Caller) -> None:
    answer = posted(game, JSON, ("Request-Id", "match-7:turn=3"), body=b"{}")
    assert answer.headers["request-id"] == answer.json()["request_id"] == "match-7:turn=3"


def test_many_headers_are_no_error(game: Caller) -> None:
    many = [(f"X-Header-{n}", "x" * 50) for n in range(200)]
    assert posted(game, JSON, *many, body=good(unique("player"))).status in (202, 400, 431)


def test_nothing_of_this_left_a_trace(game: Caller) -> None:
    assert game.do("top_up", unique("player"), "1")["asset"] == GOLD
