"""Finding a command again: by id, by key; and what may not be found."""

import json
from uuid import UUID

import httpx2
import pytest

from ledger.ids import Kind, parse_id
from ledger.keys import Scope
from tests.contracts.caller import Caller, order, refusal, unique, without_outcome
from tests.contracts.service import Service

NOT_FOUND = "404 command_not_found"


def test_by_id_and_by_key_it_is_the_same_command(game: Caller, rich: str) -> None:
    command = game.do("spend", rich, "30")
    assert game.get(command["id"]).json() == command
    assert game.find(command["idempotency_key"]).json() == command


def test_a_pending_command_is_found_at_once(game: Caller, rich: str) -> None:
    with game.service.drains_held():
        command = game.post(order("spend", rich, "30")).json()
        by_id, by_key = game.get(command["id"]), game.find(command["idempotency_key"])
        assert by_id.json() == by_key.json() == command
        waited = game.get(command["id"], wait=1), game.find(command["idempotency_key"], wait=1)
        assert [answer.json() for answer in waited] == [command, command]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in (by_id, by_key, *waited))
    assert game.find(command["idempotency_key"], wait=20).json()["status"] == "applied"


def test_whoever_lost_the_answer_finds_it_by_key(game: Caller, rich: str) -> None:
    key = unique("key")
    body = json.dumps(order("spend", rich, "30"))
    headers = {"Idempotency-Key": key, "Content-Type": "application/json", "Authorization": f"Bearer {game.api_key}"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    game.hang_up(
        f"POST /v1/commands HTTP/1.1\r\nHost: bursar\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    found = game.until(lambda: game.find(key, wait=20), lambda answer: answer.status_code == 200)
    assert found.json()["status"] == "applied"
    again = game.post(order("spend", rich, "30"), key=key)
    assert (again.json(), again.headers["idempotent-replayed"]) == (found.json(), "true")
    assert game.posted(rich) == "70"


@pytest.mark.parametrize("wait", ["0", "1", "30", "31", "999999999", "007"])
def test_any_whole_number_of_seconds_may_be_asked_for(game: Caller, rich: str, wait: str) -> None:
    command = game.do("spend", rich, "1")
    assert game.get(command["id"], wait=wait).json() == command
    assert game.find(command["idempotency_key"], wait=wait).json() == command


@pytest.mark.parametrize("wait", ["", "-1", "1.5", "1e1", "five", "\u0665", " 1", "+1", "1_0", "NaN"])
def test_a_wait_that_is_no_number(game: Caller, rich: str, wait: str) -> None:
    command = game.post(order("spend", rich, "1")).json()
    for answer in (game.get(command["id"], wait=wait), game.find(command["idempotency_key"], wait=wait)):
        assert refusal(answer) == "422 validation_failed /query/wait"


# --- by key --------------------------------------------------------------------------------------------------------


def test_a_quoted_key_finds_what_a_bare_one_sent(game: Caller, rich: str) -> None:
    command = game.do("spend", rich, "1")
    assert game.find(f'"{command["idempotency_key"]}"').json() == command


@pytest.mark.parametrize("key", ["a+b", "a&b=c", "a%2Fb", "100%", "#?/", 'a"b', "\\", "~!$'()*,;:@"])
def test_keys_with_characters_that_urls_escape(game: Caller, rich: str, key: str) -> None:
    key = f"{unique('key')}{key}"
    assert game.find(game.do("spend", rich, "1", key=key)["idempotency_key"]).json()["idempotency_key"] == key


def test_a_key_is_only_found_by_the_client_who_sent_it(game: Caller, shop: Caller, stranger: Caller, rich: str) -> None:
    key = game.do("spend", rich, "1")["idempotency_key"]
    for other in (shop, stranger):
        assert refusal(other.find(key)) == NOT_FOUND
        assert refusal(other.find(key, wait=1)) == NOT_FOUND


def test_a_key_that_nobody_sent(game: Caller) -> None:
    assert refusal(game.find(unique("key"))) == NOT_FOUND


@pytest.mark.parametrize("query", ["", "?idempotency_key=a&idempotency_key=b", "?key=a", "?wait=1"])
def test_one_key_must_be_given(game: Caller, query: str) -> None:
    assert refusal(game.http.get(f"/v1/commands{query}")) == "422 validation_failed /query/idempotency_key"


@pytest.mark.parametrize(
    "key", ["", '""', "a b", "%0A", "k%00", "k" * 256, "%F0%9F%97%A1", "%FF", "%D9%A1", "%ED%A0%80"]
)
def test_what_is_no_key_is_said_so(game: Caller, key: str) -> None:
    answer = game.http.get(f"/v1/commands?idempotency_key={key}")
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_invalid")


# --- by id ---------------------------------------------------------------------------------------------------------


def test_other_clients_of_the_tenant_see_the_command(game: Caller, shop: Caller, rich: str) -> None:
    command = game.do("spend", rich, "1")
    assert shop.get(command["id"]).json() == command


def test_another_tenant_sees_nothing_and_waits_for_nothing(game: Caller, stranger: Caller, rich: str) -> None:
    with game.service.drains_held():
        command = game.post(order("spend", rich, "1")).json()
        assert refusal(stranger.get(command["id"], wait=30)) == NOT_FOUND
    assert refusal(stranger.get(command["id"])) == NOT_FOUND


def forge(command_id: str, **changes: int) -> str:
    """The id with another time, kind, seq or version: what ledger.ids lays out, taken apart by hand."""
    bits = UUID(command_id).int
    fields = {"time": (80, 48), "version": (76, 4), "kind": (64, 12), "variant": (62, 2), "seq": (0, 62)}
    for name, value in changes.items():
        shift, width = fields[name]
        bits = bits & ~(((1 << width) - 1) << shift) | (value << shift)
    return str(UUID(int=bits))


def test_a_forged_id_finds_nothing(game: Caller, rich: str) -> None:
    command = game.do("spend", rich, "1")
    seq, ms = parse_id(Kind.COMMAND, command["id"]) or (0, 0)
    assert forge(command["id"], seq=seq, time=ms) == command["id"]
    forged = {
        "a millisecond later": forge(command["id"], time=ms + 1),
        "a millisecond earlier": forge(command["id"], time=ms - 1),
        "no time": forge(command["id"], time=0),
        "the latest time": forge(command["id"], time=2**48 - 1),
        "the kind of a transfer": forge(command["id"], kind=Kind.TRANSFER),
        "no kind": forge(command["id"], kind=0),
        "a version of UUIDs": forge(command["id"], version=7),
        "a variant of UUIDs": forge(command["id"], variant=3),
        "the next command": forge(command["id"], seq=seq + 1),
        "the largest seq": forge(command["id"], seq=2**62 - 1),
        "no seq": forge(command["id"], seq=0),
        "its transfer": command["outcome"]["transfers"][0],
        "nothing": str(UUID(int=0)),
        "everything": str(UUID(int=2**128 - 1)),
    }
    for name, forgery in forged.items():
        assert refusal(game.get(forgery, wait=1)) == NOT_FOUND, name


def test_a_command_is_no_transfer(game: Caller, rich: str) -> None:
    command = game.do("spend", rich, "1")
    assert game.http.get(f"/v1/transfers/{command['id']}").status_code == 404


@pytest.mark.parametrize(
    "spelling",
    [
        "1",
        "-1",
        "batch",
        "cancel",
        "null",
        "%00",
        "%0A",
        "%FF",
        "%2F",
        "..%2F..",
        "%ED%A0%80",
        "a" * 4_000,
        "'%20OR%201=1",
    ],
)
def test_what_is_no_id(game: Caller, spelling: str) -> None:
    answer = game.http.get(f"/v1/commands/{spelling}")
    assert answer.status_code == 404, answer.text


@pytest.mark.parametrize("after", ["%0A", "%20", "0", "/", "%00", "%2F"])
def test_an_id_with_something_behind_it_is_no_id(game: Caller, rich: str, after: str) -> None:
    command = game.do("spend", rich, "1")
    assert game.http.get(f"/v1/commands/{command['id']}{after}").status_code == 404


def test_an_id_may_be_written_in_capitals(game: Caller, rich: str) -> None:
    command = game.do("spend", rich, "1")
    assert without_outcome(game.get(command["id"].upper()).json()) == without_outcome(command)


# --- who may -------------------------------------------------------------------------------------------------------


def asked_with(service: Service, authorization: bytes | None) -> list[httpx2.Response]:
    """Every command route, asked by this bearer."""
    headers = {} if authorization is None else {b"Authorization": authorization}
    body = order("top_up", unique("player"), "1")
    with httpx2.Client(base_url=service.url, headers=headers) as client:
        client.event_hooks = {"response": [service.contract.check]}
        return [
            client.post("/v1/commands", json=body, headers={"Idempotency-Key": unique("key")}),
            client.post("/v1/commands/batch", json={"commands": [{"idempotency_key": unique("key"), **body}]}),
            client.get("/v1/commands", params={"idempotency_key": "k"}),
            client.get("/v1/commands/01a1fc83-da54-8c0d-8000-000000000001"),
        ]


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer x",
        b"Basic YTpi",
        b"Bearer bursar_test_" + b"0" * 43 + b"_000000",
        b"bursar_test_x",
        b"Bearer \xff\xfe",
    ],
)
def test_without_a_key_that_works_nothing_opens(service: Service, authorization: bytes | None) -> None:
    for answer in asked_with(service, authorization):
        assert refusal(answer) == "401 unauthorized"
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_key_opens_what_its_scopes_name(service: Service) -> None:
    for scope, opens in (
        (Scope.COMMANDS_WRITE, [202, 200, 403, 403]),
        (Scope.COMMANDS_READ, [403, 403, 404, 404]),
        (Scope.WALLETS_READ, [403] * 4),
    ):
        answers = asked_with(service, f"Bearer {service.new_key('a narrow client', scope)}".encode())
        assert [answer.status_code for answer in answers] == opens
        for answer in answers:
            if answer.status_code == 403:
                assert "commands:" in answer.json()["detail"]


def test_two_authorizations_are_none(game: Caller) -> None:
    again = ("Authorization", f"Bearer {game.api_key}")
    for method, path in (("POST", "/v1/commands"), ("POST", "/v1/commands/batch"), ("GET", "/v1/commands/x")):
        assert refusal(game.raw(method, path, [("Idempotency-Key", unique("key")), again])) == "401 unauthorized"
