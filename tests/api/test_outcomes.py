"""The feed over HTTP: long polls and event streams, cursors, filters, and who hears of what."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from api import feed as api_feed
from api.routes import outcomes
from bursar.local.valkey import Valkey
from ledger import feed as ledger_feed
from ledger.keys import Scope, create_key
from runtime.announce import Announcer
from tests.api.conftest import NewKey
from tests.api.serving import Served, code
from tests.books import GOLD, Bank

STREAM = {"Accept": "text/event-stream"}
SOON_S = 10.0


@pytest.fixture
def game(api: Served, engine: Engine, bank: Bank) -> Iterator[httpx2.Client]:
    """The bank's own client, so that what the bank orders is this client's."""
    tenant = bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)
    name = bank.one("SELECT name FROM clients WHERE id = %s", bank.client)
    scopes = (Scope.COMMANDS_READ, Scope.COMMANDS_WRITE)
    key = create_key(engine, env="test", client=name, scopes=scopes, tenant=tenant, expires_at=None)
    with api.client(key) as client:
        yield client


def ask(client: httpx2.Client, after: str | None = None, **more: Any) -> dict[str, Any]:
    answer = client.get("/v1/outcomes", params={**({"after": after} if after else {}), **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def start(client: httpx2.Client) -> str:
    """The place from which everything that follows is told."""
    answer = ask(client)
    assert answer["data"] == []
    return answer["next_cursor"]


@contextlib.contextmanager
def meanwhile(action: Callable[[], object]) -> Generator[None]:
    thread = threading.Thread(target=action)
    thread.start()
    yield
    thread.join()


@contextlib.contextmanager
def raw_stream(client: httpx2.Client, **more: Any) -> Generator[Iterator[str]]:
    """The lines of an open stream."""
    headers = STREAM | more.pop("headers", {})
    raw = httpx2.Client(base_url=client.base_url, headers=client.headers, timeout=SOON_S)
    with raw, raw.stream("GET", "/v1/outcomes", params=more, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield answer.iter_lines()


@contextlib.contextmanager
def events(client: httpx2.Client, **more: Any) -> Generator[Iterator[dict[str, str]]]:
    """An open stream; its events, one after the other."""
    with raw_stream(client, **more) as lines:
        assert next(lines) == "retry: 1000"  # by now the api knows where it begins

        def parsed() -> Iterator[dict[str, str]]:
            event: dict[str, str] = {}
            for line in lines:
                if not line:
                    if "data" in event:
                        yield event
                    event = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    event[name] = value

        yield parsed()


# --- asking again and again --------------------------------------------------------------------------------------


def test_a_cursor_takes_up_where_it_was_left(game: httpx2.Client, bank: Bank) -> None:
    cursor = start(game)
    bank.top_up("alice", 100)
    bank.spend("alice", 101)
    page = ask(game, cursor)
    assert [(each["status"], each["outcome"]["code"]) for each in page["data"]] == [
        ("applied", "applied"),
        ("rejected", "insufficient_funds"),
    ]
    assert page["data"][0] == game.get(f"/v1/commands/{page['data'][0]['id']}").json()
    again = ask(game, page["next_cursor"])
    assert (again["data"], again["next_cursor"]) == ([], page["next_cursor"])
    assert ask(game, cursor, limit=1)["data"] == page["data"][:1]


def test_a_waiting_request_is_answered_by_the_next_outcome(game: httpx2.Client, bank: Bank) -> None:
    """Without an announcement: this bank's drains make none. The look that finds it comes once a second."""
    cursor = start(game)
    with meanwhile(lambda: bank.top_up("alice", 100)):
        assert [each["status"] for each in ask(game, cursor, wait=10)["data"]] == ["applied"]


def test_a_wait_ends(game: httpx2.Client) -> None:
    cursor = start(game)
    before = time.monotonic()
    assert ask(game, cursor, wait=1) == {"data": [], "next_cursor": cursor}
    assert time.monotonic() - before >= 0.9


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look once a second finds nothing: who is answered before the client gives up heard an announcement."""

    async def no_news(*_: object) -> set[int]:
        return set()

    monkeypatch.setattr(ledger_feed, "news", no_news)


@pytest.mark.usefixtures("nobody_looks")
def test_an_announcement_wakes_who_waits(game: httpx2.Client, api: Served, bank: Bank, valkey: Valkey) -> None:
    cursor = start(game)

    def announced() -> None:
        until(lambda: api.app.state.feed.waiting == 1)
        seq = bank.top_up("alice", 100).seq
        Announcer(valkey.url).announce([seq], [bank.client])

    with meanwhile(announced):
        assert [each["status"] for each in ask(game, cursor, wait=30)["data"]] == ["applied"]


@pytest.mark.usefixtures("nobody_looks")
def test_a_cancel_wakes_who_waits(game: httpx2.Client, bank: Bank) -> None:
    cursor = start(game)
    command = {"type": "spend", "wallet": "alice", "asset": GOLD, "amount": "1"}
    id_ = game.post("/v1/commands", json=command, headers={"Idempotency-Key": "k"}).json()["id"]
    with meanwhile(lambda: game.post(f"/v1/commands/{id_}/cancel")):
        assert [each["id"] for each in ask(game, cursor, wait=30)["data"]] == [id_]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({}, ["top_up", "transfer", "spend", "top_up"]),
        ({"type": "top_up"}, ["top_up", "top_up"]),
        ({"status": "rejected"}, ["spend"]),
        ({"wallet": "bob"}, ["transfer"]),
        ({"asset": "diamonds"}, ["top_up"]),
        ({"type": "spend", "wallet": "bob"}, []),
    ],
    ids=str,
)
def test_filters(game: httpx2.Client, bank: Bank, filters: dict[str, str], told: list[str]) -> None:
    cursor = start(game)
    bank.open_asset("diamonds")
    bank.top_up("alice", 100)
    bank.transfer("alice", "bob", 1)
    bank.spend("alice", 1000)
    bank.top_up("carol", 5, asset="diamonds")
    page = ask(game, cursor, **filters)
    assert [each["type"] for each in page["data"]] == told
    assert ask(game, page["next_cursor"])["data"] == []  # what was filtered out was passed


def test_a_rare_outcome_is_found_behind_many(game: httpx2.Client, bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_feed, "READ_MAX", 2)
    monkeypatch.setattr(api_feed, "WALK_MAX", 2)
    cursor = start(game)
    for _ in range(6):
        bank.top_up("alice", 1)
    bank.spend("alice", 1)
    short = ask(game, cursor, type="spend")
    assert (short["data"], short["next_cursor"] == cursor) == ([], False)  # so many were looked at, and no more
    assert [each["type"] for each in ask(game, short["next_cursor"], type="spend")["data"]] == ["spend"]
    assert [each["type"] for each in ask(game, cursor, type="spend", wait=5)["data"]] == ["spend"]


def test_another_client_hears_nothing_of_it(game: httpx2.Client, client: httpx2.Client, bank: Bank) -> None:
    cursor = start(client)
    bank.top_up("alice", 1)
    assert ask(client, cursor)["data"] == []


# --- cursors that lead nowhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["x", "%00", "gA", "kQ", "kf8", "A" * 100, "\N{SNOWMAN}"])
def test_a_cursor_of_ones_own_making(game: httpx2.Client, after: str) -> None:
    assert code(game.get("/v1/outcomes", params={"after": after})) == "400 invalid_cursor"


def test_a_cursor_that_is_too_old(game: httpx2.Client, bank: Bank) -> None:
    cursor = start(game)
    bank.top_up("alice", 1)
    with bank.sql.transaction():
        bank.do("ALTER TABLE outcomes DISABLE TRIGGER USER")
        bank.do("UPDATE outcomes SET at = at - interval '31 days' WHERE client_id = %s", bank.client)
        bank.do("ALTER TABLE outcomes ENABLE TRIGGER USER")
    answer = game.get("/v1/outcomes", params={"after": cursor})
    assert code(answer) == "410 cursor_expired"
    assert "30 days" in answer.json()["detail"]
    with events(game, after=cursor) as stream:
        assert json.loads(next(stream)["data"])["code"] == "cursor_expired"


def test_a_cursor_from_before_a_restore(game: httpx2.Client) -> None:
    cursor = start(game)
    ahead = outcomes._encoded((0, *[2**40] * (len(outcomes._cursor_decoder.decode(decoded(cursor))) - 1)))
    assert code(game.get("/v1/outcomes", params={"after": ahead})) == "410 cursor_expired"


def decoded(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("wait=-1", "/query/wait"),
        ("wait=soon", "/query/wait"),
        ("limit=0", "/query/limit"),
        ("type=gift", "/query/type"),
        ("status=pending", "/query/status"),
        ("form=short", "/query/form"),
        ("limit=1&limit=2", "/query/limit"),
    ],
)
def test_a_parameter_that_cannot_be(game: httpx2.Client, query: str, pointer: str) -> None:
    answer = game.get(f"/v1/outcomes?{query}")
    assert code(answer) == "422 validation_failed"
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_the_key_must_open_commands(api: Served, new_key: NewKey) -> None:
    with api.client(new_key(Scope.WALLETS_READ)) as reader:
        assert code(reader.get("/v1/outcomes")) == "403 insufficient_scope"


# --- streams -----------------------------------------------------------------------------------------------------


def test_a_stream_tells_each_outcome_as_an_event(game: httpx2.Client, bank: Bank) -> None:
    with events(game) as stream:
        bank.top_up("alice", 100)
        event = next(stream)
        assert event["event"] == "command.applied"
        assert json.loads(event["data"])["type"] == "top_up"
        bank.spend("alice", 101)
        rejected = next(stream)
        assert rejected["event"] == "command.rejected"
    assert [each["status"] for each in ask(game, event["id"])["data"]] == ["rejected"]


def test_a_stream_resumes_behind_the_last_event(game: httpx2.Client, bank: Bank) -> None:
    cursor = start(game)
    seqs = [bank.top_up("alice", amount).seq for amount in range(1, 11)]
    with events(game, after=cursor) as stream:
        seen = [next(stream) for _ in range(4)]
    with events(game, after=cursor, headers={"Last-Event-ID": seen[-1]["id"]}) as stream:
        seen += [next(stream) for _ in range(6)]
    assert [json.loads(event["data"])["amount"] for event in seen] == [str(n) for n in range(1, len(seqs) + 1)]


def test_a_stream_that_broke_before_it_told_anything_resumes_where_it_began(game: httpx2.Client, bank: Bank) -> None:
    with raw_stream(game) as lines:
        assert next(lines) == "retry: 1000"
        name, _, began = next(lines).partition(": ")
        assert name == "id"
    bank.top_up("alice", 1)
    with events(game, headers={"Last-Event-ID": began}) as stream:
        assert next(stream)["event"] == "command.applied"


def test_a_stream_filters(game: httpx2.Client, bank: Bank) -> None:
    with events(game, status="rejected") as stream:
        bank.top_up("alice", 1)
        bank.spend("alice", 5)
        assert next(stream)["event"] == "command.rejected"


def test_a_stream_whose_connection_to_postgresql_is_lost_says_so_and_can_be_resumed(
    game: httpx2.Client, bank: Bank
) -> None:
    cursor = start(game)
    lost = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bursar-feed'"
    with events(game, after=cursor) as stream:
        assert bank.rows(lost)
        bank.top_up("alice", 1)
        told = next(stream)
    if told["event"] == "problem":  # else the look that all share met the loss first, and connected again
        assert json.loads(told["data"])["code"] == "database_unavailable"
        with events(game, after=cursor) as stream:
            told = next(stream)
    assert told["event"] == "command.applied"


def test_who_leaves_leaves_nothing_behind(game: httpx2.Client, api: Served) -> None:
    """Neither a long poll that is cut off nor a stream."""
    running: api_feed.Feed = api.app.state.feed
    with contextlib.ExitStack() as open_:
        for _ in range(5):
            open_.enter_context(events(game))
        raw = httpx2.Client(base_url=game.base_url, headers=game.headers, timeout=0.3)
        with raw, pytest.raises(httpx2.ReadTimeout):
            raw.get("/v1/outcomes", params={"wait": 30, "after": start(game)})
        until(lambda: running.waiting == 5)
    until(lambda: running.waiting == 0)
    assert (running._places, running._of_client) == ({}, {})


def test_too_many_at_once(game: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_feed, "WAITERS_MAX", 1)
    cursor = start(game)
    with events(game):
        until(lambda: code_of(game, cursor) == "503 overloaded")


def code_of(client: httpx2.Client, cursor: str) -> str:
    answer = client.get("/v1/outcomes", params={"after": cursor})
    return code(answer) if answer.status_code >= 400 else "200"


def until(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < ends_at, "not in time"
        time.sleep(0.01)
