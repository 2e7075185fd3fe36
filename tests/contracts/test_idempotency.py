"""One key, one command, one outcome: whoever asks again gets the same answer, and nothing happens twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.contracts.caller import GOLD, Caller, Raw, nothing_stored, order, refusal, unique, without_outcome

# --- the same request ----------------------------------------------------------------------------------------------


def replayed(answer: httpx2.Response) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


def test_a_new_key_is_a_new_command(game: Caller, wallet: str) -> None:
    first, second = (game.post(order("top_up", wallet, "1"), prefer="wait=20") for _ in range(2))
    assert first.json()["id"] != second.json()["id"]
    assert not replayed(first)
    assert not replayed(second)
    assert game.posted(wallet) == "2"


def test_a_stored_outcome_is_given_again(game: Caller, rich: str) -> None:
    key = unique("key")
    body = order("spend", rich, "30")
    first = game.post(body, key=key, prefer="wait=20")
    game.do("spend", rich, "1")  # what comes after changes nothing in it
    again = game.post(body, key=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert replayed(again)
    assert again.headers["location"] == first.headers["location"]
    assert game.posted(rich) == "69"


def test_a_key_in_flight_finds_the_pending_command(game: Caller, rich: str) -> None:
    key = unique("key")
    body = order("spend", rich, "30")
    with game.service.drains_held():
        first = game.post(body, key=key)
        again = game.post(body, key=key)
        assert (again.status_code, again.json()) == (202, first.json())
        assert replayed(again)
        waited = game.post(body, key=key, prefer="wait=1")
        assert (waited.status_code, waited.json()) == (202, first.json())
        assert waited.headers["preference-applied"] == "wait=1"
    decided = game.post(body, key=key, prefer="wait=20")
    assert (decided.status_code, decided.json()["status"]) == (200, "applied")
    assert replayed(decided)
    assert game.posted(rich) == "70"


def test_a_refusal_is_as_final_as_a_success(game: Caller, wallet: str) -> None:
    key = unique("key")
    body = order("spend", wallet, "30")
    first = game.post(body, key=key, prefer="wait=20").json()
    assert first["outcome"]["code"] == "wallet_not_found"
    game.do("top_up", wallet, "100")
    again = game.post(body, key=key, prefer="wait=20")
    assert replayed(again)
    assert again.json() == first
    assert game.posted(wallet) == "100"


def test_a_replay_survives_a_restart_of_the_api(game: Caller, rich: str) -> None:
    key = unique("key")
    body = order("spend", rich, "30", metadata={"b": 1, "a": [2]})
    first = game.post(body, key=key, prefer="wait=20").json()
    game.service.stop_api()
    game.service.start_api()
    again = game.post(body, key=key)
    assert (again.status_code, again.json()) == (200, first)
    assert replayed(again)


def test_a_hundred_parallel_posts_are_one_command(game: Caller, rich: str) -> None:
    key = unique("key")
    body = order("spend", rich, "1")
    stored = game.service.stored()
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: game.post(body, key=key, prefer="wait=5"), range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(not replayed(answer) for answer in answers) == 1
    assert len({answer.text for answer in answers}) == 1
    assert game.service.stored() == stored + 1
    assert game.posted(rich) == "99"


def test_parallel_posts_of_other_requests_make_one_command_and_many_mismatches(game: Caller, rich: str) -> None:
    key = unique("key")
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda n: game.post(order("spend", rich, n % 10 + 1), key=key), range(50)))
    by_code = [answer.status_code for answer in answers]
    assert by_code.count(422) == 45
    assert {202, 200, 422} >= set(by_code)
    (one,) = {answer.json()["id"] for answer in answers if answer.status_code != 422}
    assert game.get(one, wait=20).json()["status"] == "applied"


# --- what is the same request --------------------------------------------------------------------------------------

SAME: dict[str, tuple[str, str]] = {
    "order and spaces": (
        '{"type":"top_up","wallet":"W","asset":"gold","amount":"1","metadata":{"a":1,"b":{"c":2,"d":3}}}',
        ' { "metadata" : {"b": {"d":3, "c":2}, "a":1} , "amount":"1",\n"asset":"gold","wallet":"W","type":"top_up"} ',
    ),
    "string or integer": (
        '{"type":"top_up","wallet":"W","asset":"gold","amount":"30"}',
        '{"type":"top_up","wallet":"W","asset":"gold","amount":30}',
    ),
    "leading zeros": (
        '{"type":"top_up","wallet":"W","asset":"gold","amount":"30"}',
        '{"type":"top_up","wallet":"W","asset":"gold","amount":"0030"}',
    ),
    "equal instants": (
        '{"type":"top_up","wallet":"W","asset":"gold","amount":1,"expires_at":"2099-11-21T12:00:05Z"}',
        '{"type":"top_up","wallet":"W","asset":"gold","amount":1,"expires_at":"2099-11-21T14:00:05.000+02:00"}',
    ),
    "null is absent": (
        '{"type":"top_up","wallet":"W","asset":"gold","amount":1}',
        '{"type":"top_up","wallet":"W","asset":"gold","amount":1,"reference":null,"metadata":null,"expires_at":null}',
    ),
    "escapes": (
        '{"type":"top_up","wallet":"W","asset":"gold","amount":1,"reference":"größe 🗡","metadata":{"é":"/"}}',
        r'{"type":"top_up","wallet":"W","asset":"go\u006cd","\u0061mount":1,"reference":"gr\u00f6\u00dfe \ud83d\udde1",'
        r'"metadata":{"\u00e9":"\/"}}',
    ),
}
OTHER: dict[str, dict[str, Any]] = {
    "amount": {"amount": "31"},
    "type": {"type": "bonus"},
    "wallet": {"wallet": "someone-else"},
    "asset": {"asset": "silver"},
    "reference": {"reference": "order-100"},
    "no reference": {"reference": None},
    "metadata": {"metadata": {"item": "bow"}},
    "metadata's type": {"metadata": {"item": ["sword"]}},
    "a deadline": {"expires_at": "2099-11-21T12:00:05Z"},
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_request_in_another_spelling(game: Caller, wallet: str, name: str) -> None:
    key = unique("key")
    one, other = (spelling.replace('"W"', f'"{wallet}"') for spelling in SAME[name])
    first = game.post(None, content=one, key=key, prefer="wait=20")
    again = game.post(None, content=other, key=key, prefer="wait=20")
    assert first.status_code == again.status_code == 200, again.text
    assert replayed(again)
    assert again.json() == first.json()


@pytest.mark.parametrize("name", OTHER)
def test_another_request_is_refused_and_names_the_original(game: Caller, wallet: str, name: str) -> None:
    key = unique("key")
    body = order("top_up", wallet, "30", reference="order-99", metadata={"item": "sword"})
    original = game.post(body, key=key, prefer="wait=20").json()
    with nothing_stored(game.service):
        answer = game.post({**body, **OTHER[name]}, key=key, prefer="wait=20")
    assert refusal(answer) == "422 idempotency_key_reused /header/Idempotency-Key"
    assert original["id"] in answer.json()["detail"]
    assert answer.headers["location"] == f"/v1/commands/{original['id']}"
    assert not answer.json()["retryable"]
    assert game.get(original["id"]).json() == original
    assert game.posted(wallet) == "30"


def test_another_target_is_another_request(game: Caller, rich: str) -> None:
    key = unique("key")
    first = game.do("transfer", rich, "1", to_wallet=unique("player"), key=key)
    other = game.post(order("transfer", rich, "1", to_wallet=unique("player")), key=key)
    assert refusal(other) == "422 idempotency_key_reused /header/Idempotency-Key"
    assert first["id"] in other.json()["detail"]


def test_a_mismatch_does_not_spoil_the_key(game: Caller, rich: str) -> None:
    key = unique("key")
    with game.service.drains_held():
        first = game.post(order("spend", rich, "30"), key=key)
        assert game.post(order("spend", rich, "31"), key=key).status_code == 422
    again = game.post(order("spend", rich, "30"), key=key, prefer="wait=20").json()
    assert without_outcome(again) == without_outcome(first.json())
    assert game.posted(rich) == "70"


def test_keys_are_the_clients_own(game: Caller, shop: Caller, stranger: Caller, wallet: str) -> None:
    key = unique("key")
    body = order("top_up", wallet, "10")
    answers = [caller.post(body, key=key, prefer="wait=20") for caller in (game, shop, stranger)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert not any(map(replayed, answers))
    assert len({answer.json()["id"] for answer in answers}) == 3
    assert (game.posted(wallet), stranger.posted(wallet)) == ("20", "10")


# --- the header ----------------------------------------------------------------------------------------------------


def send(game: Caller, *keys: str | bytes) -> Raw:
    headers = [("Content-Type", "application/json"), *(("Idempotency-Key", key) for key in keys)]
    body = f'{{"type":"top_up","wallet":"{unique("player")}","asset":"{GOLD}","amount":"1"}}'
    return game.raw("POST", "/v1/commands", headers, body.encode())


def test_a_key_is_required(game: Caller) -> None:
    with nothing_stored(game.service):
        assert refusal(send(game)) == "400 idempotency_key_missing /header/Idempotency-Key"


@pytest.mark.parametrize(
    "keys",
    [
        [b"k-1", b"k-2"],
        [b"k-1", b"k-1"],
        [b"k" * 256],
        [b'"' + b"k" * 256 + b'"'],
        [b"k" * 5_000],
        [b""],
        [b'""'],
        [b"   "],
        [b"k 1"],
        [b'"k 1"'],
        [b"k\t1"],
        ["größe".encode()],
        ["größe".encode("latin-1")],
        ["k\u0661".encode()],
        [b"k\xa0"],
    ],
    ids=lambda keys: " and ".join(ascii(key[:12].decode("latin-1")) for key in keys),
)
def test_what_is_no_key(game: Caller, keys: list[bytes]) -> None:
    with nothing_stored(game.service):
        assert refusal(send(game, *keys)) == "400 idempotency_key_invalid /header/Idempotency-Key"


@pytest.mark.parametrize("inside", [b"k\x00k", b"k\x01k", b"k\x7fk"], ids=["NUL", "C0", "DEL"])
def test_a_control_character_is_no_part_of_any_header(game: Caller, inside: bytes) -> None:
    """The server's own parser may refuse such a request before the api sees it."""
    request = b"POST /v1/commands HTTP/1.1\r\nHost: bursar\r\nIdempotency-Key: %s\r\nContent-Length: 2\r\n\r\n{}"
    with nothing_stored(game.service):
        assert game.speak(request % inside).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("key", ["k", "!", "~", "k" * 255, "a,b;c=d", "{}[]()<>@:\\/?=", "'k'", 'a"b', "0"])
def test_any_visible_characters_are_a_key(new_caller: Callable[..., Caller], key: str) -> None:
    newcomer = new_caller(unique("client"))
    answer = send(newcomer, key)
    assert (answer.status, answer.headers["idempotency-key"]) == (202, key)
    assert newcomer.find(key).json()["idempotency_key"] == key


def test_quoted_and_bare_are_the_same_key(game: Caller, wallet: str) -> None:
    key = unique("key")
    body = order("top_up", wallet, "1")
    first = game.post(body, key=f'"{key}"', prefer="wait=20")
    again = game.post(body, key=key)
    assert again.json() == first.json()
    assert replayed(again)
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"] == key
    longest = (unique("key") + "k" * 255)[:255]
    assert send(game, f'"{longest}"').headers["idempotency-key"] == longest


def test_spaces_before_a_key_are_no_part_of_it(game: Caller) -> None:
    key = unique("key")
    assert send(game, f"  {key}").headers["idempotency-key"] == key


def test_keys_differ_by_case(game: Caller, wallet: str) -> None:
    key = unique("key")
    ids = {game.post(order("top_up", wallet, "1"), key=spelling).json()["id"] for spelling in (key, key.upper())}
    assert len(ids) == 2
