"""A wallet's entries: filtered, paged, as CSV; and statements, which add up."""

import csv
import io
import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import event

from api import export
from ledger import history
from tests.api.serving import Served, code
from tests.books import GOLD, Bank

ENTRIES = "/v1/wallets/alice/entries"
STATEMENT = "/v1/wallets/alice/statement"
MICROSECOND = timedelta(microseconds=1)
CSV = {"Accept": "text/csv"}


def listed(client: httpx2.Client, limit: int = 50, /, **which: Any) -> list[dict[str, Any]]:
    """All of the wallet's entries that pass these filters, page by page."""
    found: list[dict[str, Any]] = []
    which["limit"] = str(limit)
    while True:
        answer = client.get(ENTRIES, params={name.strip("_"): value for name, value in which.items()})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["data"]) <= limit
        found += answer.json()["data"]
        which["cursor"] = answer.json()["next_cursor"]
        if not which["cursor"]:
            return found


def table(answer: httpx2.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def versions(entries: list[dict[str, Any]]) -> list[int]:
    return [int(entry["version"]) for entry in entries]


# --- what passes ---------------------------------------------------------------------------------------------------


def test_a_hold_is_an_entry_that_moves_nothing(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    bank.capture(bank.hold("alice", 40), 15)
    assert [
        (entry["type"], entry["direction"], entry["amount"], entry["balance_after"], entry["held_after"])
        for entry in listed(client)
    ] == [
        ("capture", "debit", "15", "85", "0"),
        ("hold", "none", "0", "100", "40"),
        ("top_up", "credit", "100", "100", "0"),
    ]


def test_by_asset(client: httpx2.Client, bank: Bank) -> None:
    bank.open_asset("diamonds")
    bank.top_up("alice", 1)
    bank.top_up("alice", 2, asset="diamonds")
    assert [entry["amount"] for entry in listed(client, asset="diamonds")] == ["2"]
    assert listed(client, asset="of_nobody") == []


def test_from_is_included_and_to_is_not(client: httpx2.Client, bank: Bank) -> None:
    times = [bank.top_up("alice", 1).at for _ in range(4)]
    between = {"from_": times[1].isoformat(), "to": times[3].isoformat()}
    assert versions(listed(client, **between)) == [3, 2]
    assert versions(listed(client, 1, **between)) == [3, 2]
    assert versions(listed(client, from_=(times[1] + MICROSECOND).isoformat())) == [4, 3]
    assert versions(listed(client, to=(times[1] + MICROSECOND).isoformat())) == [2, 1]
    assert listed(client, from_=times[1].isoformat(), to=times[1].isoformat()) == []
    assert listed(client, to="0001-01-01T00:00:00Z") == listed(client, from_="9999-12-31T23:59:59Z") == []
    assert versions(listed(client, from_="0001-01-01T00:00:00Z", to="9999-12-31T23:59:59Z")) == [4, 3, 2, 1]


def test_by_type_reference_and_metadata(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100, reference="order-1", metadata='{"item": "sword", "level": {"is": 3}}')
    bank.spend("alice", 1, reference="order-1", metadata='{"item": "shield"}')
    bank.spend("alice", 1, metadata='{"item": "sword", "tags": ["a", "b"]}')
    bank.transfer("alice", "bob", 1, reference="order-2")
    assert versions(listed(client, type="spend")) == [3, 2]
    assert versions(listed(client, reference="order-1")) == [2, 1]
    assert versions(listed(client, metadata='{"item":"sword"}')) == [3, 1]
    assert versions(listed(client, metadata='{"level":{"is":3}}')) == [1]
    assert versions(listed(client, metadata='{"tags":["b"]}')) == [3]
    assert versions(listed(client, metadata="{}")) == [4, 3, 2, 1]
    assert versions(listed(client, type="spend", reference="order-1", metadata='{"item":"shield"}', asset=GOLD)) == [2]
    assert listed(client, type="top_up", reference="order-2") == []
    assert listed(client, reference="order-3") == listed(client, metadata='{"item":"bow"}') == []


def test_a_reference_of_another_wallet_or_tenant_is_not_ours(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 1)
    bank.top_up("bob", 1, reference="order-1", metadata='{"item": "sword"}')
    other = Bank(bank.url)
    try:
        other.top_up("alice", 1, reference="order-1", metadata='{"item": "sword"}')
        assert listed(client, reference="order-1") == listed(client, metadata='{"item":"sword"}') == []
    finally:
        other.close()


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("type=conjure", "/query/type"),
        ("metadata=[]", "/query/metadata"),
        ("metadata={", "/query/metadata"),
        ('metadata={"a":1,"a":2}', "/query/metadata"),
        ('metadata={"a":"\\u0000"}', "/query/metadata"),
        ("metadata=" + "[" * 100, "/query/metadata"),
        ("from=yesterday", "/query/from"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "/query/to"),
        ("asset=%00", "/query/asset"),
        ("reference=%00", "/query/reference"),
        ("reference=" + "x" * 201, "/query/reference"),
        ("since=2026-01-02T00:00:00Z", "/query/since"),
        ("type=spend&type=top_up", "/query/type"),
    ],
)
def test_a_filter_that_cannot_be(client: httpx2.Client, bank: Bank, query: str, pointer: str) -> None:
    bank.open_wallet("alice")
    answer = client.get(f"{ENTRIES}?{query}")
    assert code(answer) == "422 validation_failed"
    assert answer.json()["errors"][0]["pointer"] == pointer


# --- pages of a walk -----------------------------------------------------------------------------------------------


@pytest.fixture
def short_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WALK_MAX", 7)
    monkeypatch.setattr(history, "SEQS_MAX", 2)


@pytest.mark.usefixtures("short_walks")
def test_pages_of_short_walks_are_the_whole_list_in_order(client: httpx2.Client, bank: Bank) -> None:
    """Whatever the filter, the limit and the number of accounts: nothing is repeated or skipped, all is in order."""
    draw = random.Random(1)
    assets = (GOLD, "diamonds", "points")
    for asset in assets[1:]:
        bank.open_asset(asset)
    for _ in range(12):
        bank.accept(
            [
                bank.new(
                    draw.choice(["top_up", "top_up", "bonus", "spend"]), "alice", 1, asset=draw.choice(assets),
                    reference=draw.choice([None, "often", f"once-{draw.random()}"]),
                    metadata=draw.choice([None, '{"item": "sword"}']),
                )
                for _ in range(draw.randint(1, 8))
            ]
        )  # fmt: skip
        bank.drain()
    whole = listed(client, 200)
    assert len(whole) > 20
    assert whole == sorted(whole, key=lambda entry: entry["at"], reverse=True)
    half = whole[len(whole) // 2]["at"]
    for limit in (1, 2, 3, 200):
        assert listed(client, limit) == whole
        for name, value in (("type", "bonus"), ("type", "top_up"), ("reference", "often"), ("asset", "points")):
            expected = [entry for entry in whole if entry[name] == value]
            assert listed(client, limit, **{name: value}) == expected
        swords = [entry for entry in whole if entry["metadata"] == {"item": "sword"}]
        assert listed(client, limit, metadata='{"item":"sword"}') == swords
        assert listed(client, limit, metadata='{"item":"sword"}', to=half) == [e for e in swords if e["at"] < half]
        assert listed(client, limit, type="spend", from_=half) == [
            entry for entry in whole if entry["type"] == "spend" and entry["at"] >= half
        ]
    csv_of = table(client.get(ENTRIES, headers=CSV, params={"type": "top_up"}))
    assert [line["id"] for line in csv_of] == [entry["id"] for entry in reversed(whole) if entry["type"] == "top_up"]


def test_pages_of_a_few_commands_are_the_whole_list_in_order(client: httpx2.Client, bank: Bank) -> None:
    """Those are looked up by the reference or the metadata, and not walked to."""
    bank.open_asset("diamonds")
    for n in range(12):
        order = {"reference": "order-1", "metadata": '{"item": "sword"}'} if n % 3 else {}
        bank.top_up("alice", 1, asset=(GOLD, "diamonds")[n % 2], **order)
    whole = [entry for entry in listed(client) if entry["reference"]]
    assert len(whole) == 8
    half = whole[4]["at"]
    for which in ({"reference": "order-1"}, {"metadata": '{"item":"sword"}'}):
        for limit in (1, 2, 3, 50):
            assert listed(client, limit, **which) == whole
            assert listed(client, limit, **which, to=half) == whole[5:]
            assert listed(client, limit, **which, from_=half) == whole[:5]
        lines = table(client.get(ENTRIES, headers=CSV, params=which))
        assert [line["id"] for line in lines] == [entry["id"] for entry in reversed(whole)]


@pytest.mark.usefixtures("short_walks")
def test_an_account_without_entries_of_that_time_takes_no_share_of_the_walk(client: httpx2.Client, bank: Bank) -> None:
    bank.open_asset("diamonds")
    bank.top_up("alice", 1, asset="diamonds")
    since = bank.top_up("alice", 1).at
    for _ in range(5):
        bank.order("top_up", "alice", 1)
    bank.drain()
    found = client.get(ENTRIES, params={"from": since.isoformat()}).json()
    assert (versions(found["data"]), found["next_cursor"]) == ([6, 5, 4, 3, 2, 1], "")


@pytest.mark.usefixtures("short_walks")
def test_an_empty_page_with_a_cursor_is_not_the_end(client: httpx2.Client, bank: Bank) -> None:
    bank.bonus("alice", 1)
    bank.accept([bank.new("top_up", "alice", 1) for _ in range(20)])
    bank.drain()
    first = client.get(ENTRIES, params={"type": "bonus"}).json()
    assert (first["data"], bool(first["next_cursor"])) == ([], True)
    assert versions(listed(client, type="bonus")) == [1]


def test_the_next_page_is_asked_for_with_the_same_filters(client: httpx2.Client, bank: Bank) -> None:
    for kind in ("top_up", "bonus", "top_up", "bonus"):
        bank.order(kind, "alice", 1)
    bank.drain()
    answer = client.get(ENTRIES, params={"type": "bonus", "limit": 1})
    (rest,) = client.get(answer.links["next"]["url"]).json()["data"]
    assert rest["type"] == "bonus"


def test_a_foreign_account_in_a_cursor_opens_nothing(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 1)
    bank.top_up("bob", 1)
    cursor = client.get("/v1/wallets/bob/entries", params={"limit": 1}).json()
    assert cursor["next_cursor"] == ""
    bank.top_up("bob", 1)
    cursor = client.get("/v1/wallets/bob/entries", params={"limit": 1}).json()["next_cursor"]
    assert client.get(ENTRIES, params={"cursor": cursor}).json() == {"data": [], "next_cursor": ""}


# --- CSV -----------------------------------------------------------------------------------------------------------


def test_csv_is_the_whole_filtered_list_oldest_first(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    bank.spend("alice", 30, reference='a "quoted", one', metadata='{"item": "sword"}')
    answer = client.get(ENTRIES, headers=CSV)
    assert 'filename="alice-entries.csv"' in answer.headers["content-disposition"]
    assert answer.text.count("\r\n") == 3
    first, second = table(answer)
    newest, _ = listed(client)
    assert (first["direction"], first["amount"], first["metadata"], first["reference"]) == ("credit", "100", "", "")
    assert second == {
        name: json.dumps(newest[name]) if name == "metadata" else str(newest[name]) for name in export.COLUMNS
    }
    assert table(client.get(ENTRIES, headers=CSV, params={"type": "spend"})) == [second]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\uff1dA1"])
def test_no_cell_of_a_callers_text_is_a_formula(client: httpx2.Client, bank: Bank, text: str) -> None:
    bank.top_up("alice", 1, reference=text)
    (line,) = table(client.get(ENTRIES, headers=CSV))
    assert line["reference"] == f"'{text}"


def test_a_balance_below_zero_stays_a_number(client: httpx2.Client, bank: Bank) -> None:
    top_up = bank.top_up("alice", 5)
    bank.spend("alice", 5)
    assert bank.reverse(top_up, allow_negative=True).code == "applied"
    (*_, last) = table(client.get(ENTRIES, headers=CSV))
    assert last["balance_after"] == "-5"


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("text/csv", True),
        ("text/csv; charset=utf-8", True),
        ("text/*", True),
        ("text/csv, */*", True),
        ("text/csv;q=0.5, application/json;q=0.4", True),
        ("text/csv;q=0.4, application/json;q=0.5", False),
        ("text/csv, application/json", False),
        ("text/csv;q=0", False),
        ("text/csv;q=x", False),
        ("text/html", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_what_accept_chooses(client: httpx2.Client, bank: Bank, accept: str, is_csv: bool) -> None:
    bank.open_wallet("alice")
    answer = client.get(ENTRIES, headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("text/csv") == is_csv


@pytest.mark.parametrize("name", ["limit", "cursor"])
def test_csv_is_no_page(client: httpx2.Client, bank: Bank, name: str) -> None:
    bank.open_wallet("alice")
    answer = client.get(ENTRIES, headers=CSV, params={name: "5"})
    assert answer.json()["errors"][0]["pointer"] == f"/query/{name}"


def test_csv_of_a_wallet_that_is_not_there(client: httpx2.Client) -> None:
    assert code(client.get(ENTRIES, headers=CSV)) == "404 wallet_not_found"


# --- statements ----------------------------------------------------------------------------------------------------


def signed(entry: dict[str, Any]) -> int:
    return int(entry["amount"]) * {"debit": -1, "credit": 1, "none": 0}[entry["direction"]]


def assert_adds_up(client: httpx2.Client, **between: datetime) -> dict[str, Any]:
    """As JSON and as CSV: opening and entries make closing, and so does each balance on the way."""
    asked = {"asset": GOLD, **{name.strip("_"): at.isoformat() for name, at in between.items()}}
    answer = client.get(STATEMENT, params=asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    posted = int(found["opening"]["posted"])
    for n, entry in enumerate(found["entries"], start=1):
        posted += signed(entry)
        assert (int(entry["balance_after"]), entry["version"]) == (posted, found["opening"]["version"] + n)
    assert int(found["closing"]["posted"]) == posted
    assert found["closing"]["version"] == found["opening"]["version"] + len(found["entries"])
    held = found["entries"][-1]["held_after"] if found["entries"] else found["opening"]["held"]
    assert (found["closing"]["held"], found["closing"]["available"]) == (held, str(posted - int(held)))

    opening, *lines, closing = table(client.get(STATEMENT, headers=CSV, params=asked))
    assert (opening["type"], opening["balance_after"]) == ("opening_balance", found["opening"]["posted"])
    assert (closing["type"], closing["balance_after"]) == ("closing_balance", found["closing"]["posted"])
    assert int(opening["balance_after"]) + sum(map(signed, lines)) == int(closing["balance_after"])
    assert [line["id"] for line in lines] == [entry["id"] for entry in found["entries"]]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_statement_adds_up_whatever_happened_and_wherever_it_is_cut(
    client: httpx2.Client, bank: Bank, seed: int
) -> None:
    draw = random.Random(seed)
    moments: list[datetime] = []
    holds: list[int] = []
    bank.top_up("alice", 1_000)
    for _ in range(15):
        for _ in range(draw.randint(1, 4)):
            amount = draw.randint(1, 60)
            match draw.choice(["top_up", "spend", "transfer", "hold", "capture"]):
                case "transfer":
                    source, target = draw.sample(["alice", "bob"], 2)
                    bank.order("transfer", source, amount, to_wallet=target)
                case "hold":
                    moments.append(bank.hold("alice", amount).at)
                    holds = [*holds, bank.one("SELECT max(seq) FROM holds")]
                case "capture" if holds:
                    bank.capture(holds.pop())
                case kind:
                    bank.order("spend" if kind == "spend" else "top_up", "alice", amount)
        bank.drain()
        moments.append(bank.one("SELECT max(at) FROM transfers"))
    whole = assert_adds_up(client)
    assert (whole["opening"]["version"], len(whole["entries"])) == (0, len(bank.entries("alice")))
    for _ in range(12):
        since, until = sorted(
            draw.choice(moments) + draw.choice([-MICROSECOND, timedelta(), MICROSECOND]) for _ in range(2)
        )
        part = assert_adds_up(client, from_=since, to=until)
        between = [e for e in whole["entries"] if since <= datetime.fromisoformat(e["at"]) < until]
        assert part["entries"] == between
        before = assert_adds_up(client, to=since)
        assert before["closing"] == part["opening"]


def test_a_statement_of_nothing(client: httpx2.Client, bank: Bank) -> None:
    """What the wallet has of another asset is not in it."""
    bank.open_asset("diamonds")
    bank.top_up("alice", 1, asset="diamonds")
    found = assert_adds_up(client)
    assert found["opening"] == found["closing"] == {"posted": "0", "held": "0", "available": "0", "version": 0}
    assert (found["entries"], found["from"]) == ([], None)


def test_statements_that_cannot_be(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    assert client.get(STATEMENT).json()["errors"][0]["pointer"] == "/query/asset"
    assert code(client.get(STATEMENT, params={"asset": "of_nobody"})) == "404 asset_not_found"
    assert code(client.get("/v1/wallets/bob/statement", params={"asset": GOLD})) == "404 wallet_not_found"
    for which in (
        {"to": bank.in_seconds(60).isoformat()},
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
    ):
        answer = client.get(STATEMENT, params={"asset": GOLD, **which})
        assert code(answer) == "422 validation_failed"
        assert answer.json()["errors"][0]["pointer"] == "/query/to"


# --- transfers -----------------------------------------------------------------------------------------------------


def test_a_transfer_tells_its_debit_first(client: httpx2.Client, bank: Bank) -> None:
    """Whichever of the two accounts is the older one."""
    for wallet in ("alice", "bob"):
        bank.top_up(wallet, 10)
    for source, target in (("alice", "bob"), ("bob", "alice")):
        bank.transfer(source, target, 1)
        moved = client.get(f"/v1/transfers/{listed(client)[0]['transfer']}").json()["entries"]
        assert [(entry["wallet"], entry["direction"]) for entry in moved] == [(source, "debit"), (target, "credit")]


def test_a_transfers_id_has_its_time(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 1)
    (entry,) = listed(client)
    good = entry["transfer"]
    another_time = f"{int(good[0], 16) ^ 1:x}{good[1:]}"
    assert client.get(f"/v1/transfers/{good}").status_code == 200
    assert code(client.get(f"/v1/transfers/{another_time}")) == "404 transfer_not_found"


# --- streaming -----------------------------------------------------------------------------------------------------

MANY = 20_000


@pytest.fixture
def long_history(bank: Bank) -> int:
    """A wallet with 20,000 entries more than its first."""
    bank.top_up("alice", 1)
    account, seq = bank.rows("SELECT account_id, seq FROM entries WHERE amount > 0 ORDER BY seq DESC LIMIT 1")[0]
    bank.do("SET session_replication_role = replica")
    bank.do(
        "INSERT INTO entries (account_id, version, seq, asset_id, amount, balance_after, at)"
        " SELECT account_id, v, seq, asset_id, 1, v, at FROM entries, generate_series(2, %s) v"
        " WHERE account_id = %s AND version = 1",
        MANY,
        account,
    )
    bank.do("UPDATE accounts SET posted = %s, version = %s WHERE id = %s", MANY, MANY, account)
    bank.do("SET session_replication_role = DEFAULT")
    bank.do("ANALYZE entries")
    return seq


@pytest.fixture
def reads(api: Served) -> Iterator[list[int]]:
    """How many rows each statement of the api brought back, as it goes."""
    rows: list[int] = []
    engine = api.app.state.engine.sync_engine

    def executed(connection: Any, cursor: Any, *_: object) -> None:
        rows.append(cursor.rowcount)

    event.listen(engine, "after_cursor_execute", executed)
    yield rows
    event.remove(engine, "after_cursor_execute", executed)


@pytest.mark.usefixtures("long_history")
@pytest.mark.parametrize("headers", [{}, CSV])
def test_a_long_statement_is_read_a_chunk_at_a_time(
    client: httpx2.Client, reads: list[int], headers: dict[str, str]
) -> None:
    """And between two chunks no connection is held, so no transaction stands open."""
    answer = client.get(STATEMENT, params={"asset": GOLD}, headers=headers)
    found = table(answer) if headers else answer.json()["entries"]
    assert len(found) == MANY + (2 if headers else 0)
    assert max(reads) <= export.CHUNK_MAX + 1
    assert len(reads) >= MANY / export.CHUNK_MAX


@pytest.mark.usefixtures("long_history")
def test_a_client_who_leaves_stops_the_reading(api: Served, client: httpx2.Client, reads: list[int]) -> None:
    pool = api.app.state.engine.sync_engine.pool
    with (
        httpx2.Client(base_url=api.url, headers=client.headers) as leaving,
        leaving.stream("GET", STATEMENT, params={"asset": GOLD}) as answer,
    ):
        assert next(answer.iter_raw())
    for _ in range(1_000):  # a read under way may still end
        before = len(reads)
        client.get("/v1/wallets/alice")
        if len(reads) == before + 1 and pool.checkedout() == 0:
            break
    assert len(reads) < MANY / export.CHUNK_MAX / 2
