"""`bursar export` and `bursar import`: a tenant goes to another one whole, once, however often it is begun."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import msgspec
import pytest

from ledger import db, exporting, importing
from ledger.audit import audit
from tests.books import Bank
from tests.desk.conftest import Bursar


class Place:
    """A tenant to import into, with its bank and the names that the command line wants."""

    def __init__(self, url: str) -> None:
        self.bank = Bank(url)
        self.bank.do("DELETE FROM accounts WHERE version = 0 AND wallet_id IN"
                     " (SELECT id FROM wallets WHERE tenant_id = %s)", self.bank.tenant)  # fmt: skip
        self.bank.do("DELETE FROM wallets WHERE tenant_id = %s", self.bank.tenant)
        self.bank.do("DELETE FROM assets WHERE tenant_id = %s", self.bank.tenant)
        self.tenant = self.bank.one("SELECT code FROM tenants WHERE id = %s", self.bank.tenant)
        self.client = self.bank.one("SELECT name FROM clients WHERE id = %s", self.bank.client)
        self.names = ("--tenant", self.tenant, "--client", self.client)


@pytest.fixture
def place(bank: Bank) -> Iterator[Place]:
    other = Place(bank.url)
    yield other
    other.bank.close()


@pytest.fixture
def moved(bank: Bank) -> Bank:
    """A tenant with something of each kind."""
    bank.open_asset("diamonds")
    bank.top_up("alice", 100)
    bank.top_up("alice", 7, asset="diamonds")
    bank.bonus("alice", 20, credits_expire_at=bank.in_seconds(86_400), priority=10)
    bank.top_up("alice", 30, credits_expire_at=bank.in_seconds(90_000), source="purchased")
    bank.spend("alice", 5)
    bank.hold("alice", 40, reference="match-7", metadata='{"level": 3}')
    bank.top_up("bob", 10)
    bank.limit_wallet("bob", max_balance=15)
    bank.open_wallet("carol")
    bank.freeze("bob", "debits_frozen")
    bank.open_wallet("dave")
    bank.do("UPDATE wallets SET status = 'closed' WHERE tenant_id = %s AND code = 'dave'", bank.tenant)
    bank.do("UPDATE wallets SET name = 'Carol', metadata = '{\"a\": [1]}' WHERE tenant_id = %s AND code = 'carol'",
            bank.tenant)  # fmt: skip
    bank.limit_asset(max_supply=1_000)
    bank.freeze_asset("diamonds")
    return bank


def export(bursar: Bursar, bank: Bank, *more: str) -> str:
    code = bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)
    return bursar("export", "--tenant", code, *more).out


def state(bank: Bank) -> dict[str, Any]:
    """What is to be moved, without what differs: ids and times."""
    of_tenant: LiteralString = "WHERE w.tenant_id = %s AND w.code NOT LIKE '@%%' ORDER BY 1, 2"
    accounts: LiteralString = (
        " FROM wallets w JOIN accounts a ON a.wallet_id = w.id JOIN assets s ON s.id = a.asset_id "
    )
    open_holds: LiteralString = (
        "JOIN holds h ON h.account_id = a.id AND h.status = 'open' JOIN commands c ON c.seq = h.seq "
    )
    some_lots: LiteralString = "JOIN lots l ON l.account_id = a.id AND l.remaining > 0 "
    queries: dict[str, LiteralString] = {
        "assets": "SELECT code, name, scale, status, limits::text FROM assets w " + of_tenant,
        "wallets": "SELECT code, status, name, metadata::text FROM wallets w " + of_tenant,
        "accounts": "SELECT w.code, s.code, posted, held, a.limits::text" + accounts + of_tenant,
        "lots": "SELECT w.code, l.remaining, l.source, l.priority, l.expires_at" + accounts + some_lots + of_tenant,
        "holds": "SELECT w.code, h.remaining, h.expires_at, c.reference, c.metadata::text"
        + accounts + open_holds + of_tenant,
    }  # fmt: skip
    return {name: bank.sql.execute(query, (bank.tenant,)).fetchall() for name, query in queries.items()}


def test_there_and_nothing_twice(moved: Bank, place: Place, bursar: Bursar, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text(export(bursar, moved))
    said = bursar("import", file, *place.names)
    assert "6 commands carried out, 0 had been before." in said.err
    there = state(place.bank)
    assert there == state(moved)
    (hold,) = said.lines
    old, new = (bank.rows("SELECT seq FROM holds h JOIN commands USING (seq) WHERE tenant_id = %s", bank.tenant)
                for bank in (moved, place.bank))  # fmt: skip
    assert (hold["id"], hold["imported_as"]) == tuple(
        importing.command_id(seq, moved.one("SELECT accepted_at FROM commands WHERE seq = %s", seq))
        for ((seq,),) in (old, new)
    )
    again = bursar("import", file, *place.names)
    assert "0 commands carried out, 6 had been before." in again.err
    assert again.out == said.out
    assert state(place.bank) == there
    place.bank.assert_settled()
    engine = db.engine(moved.url, application="test-audit")
    try:
        assert [finding for finding in audit(engine) if not finding.holds] == []
    finally:
        engine.dispose()


def test_one_that_was_cut_short_goes_on(
    moved: Bank, place: Place, bursar: Bursar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export(bursar, moved).splitlines(keepends=True)
    monkeypatch.setattr(importing, "BATCH", 2)
    for length in (3, 8, 11):
        cut = tmp_path / f"{length}.jsonl"
        cut.write_text("".join(whole[:length]))
        assert "was cut short" in bursar("import", cut, *place.names, code=1).err
    bursar("import", "-", *place.names, stdin="".join(whole))
    assert state(place.bank) == state(moved)
    place.bank.assert_settled()


def test_a_file_that_lost_a_line_in_the_middle_is_noticed(
    moved: Bank, place: Place, bursar: Bursar, tmp_path: Path
) -> None:
    lines = export(bursar, moved).splitlines(keepends=True)
    holed = tmp_path / "holed.jsonl"
    holed.write_text("".join(line for line in lines if '"carol"' not in line))
    assert "was cut short" in bursar("import", holed, *place.names, code=1).err


def test_a_tenant_with_a_history_of_its_own_is_left_alone(
    moved: Bank, place: Place, bursar: Bursar, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for file in (first, second):
        file.write_text(export(bursar, moved))
    bursar("import", first, *place.names)
    there = state(place.bank)
    said = bursar("import", second, *place.names, code=1)
    assert "balances that are not of this export" in said.err
    assert state(place.bank) == there


def test_a_debt_is_told_and_the_rest_is_there(bank: Bank, place: Place, bursar: Bursar, tmp_path: Path) -> None:
    credit = bank.top_up("alice", 100)
    bank.spend("alice", 90)
    bank.reverse(credit, allow_negative=True)
    bank.top_up("bob", 5)
    file = tmp_path / "export.jsonl"
    file.write_text(export(bursar, bank))
    said = bursar("import", file, *place.names, code=1)
    assert "Refused: adjust alice gold: insufficient_funds" in said.err
    assert (place.bank.available("bob"), place.bank.account("alice")) == (5, None)
    place.bank.assert_settled()


def test_credits_that_expired_meanwhile_stay_behind(bank: Bank, place: Place, bursar: Bursar, tmp_path: Path) -> None:
    bank.bonus("alice", 20, credits_expire_at=bank.in_seconds(3600))
    bank.top_up("alice", 5)
    lines = [msgspec.json.decode(line) for line in export(bursar, bank).splitlines()]
    for line in lines:
        if line.get("expires_at"):
            line["expires_at"] = "2020-01-01T00:00:00Z"
    file = tmp_path / "export.jsonl"
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    assert "1 credits or holds had expired meanwhile" in bursar("import", file, *place.names).err
    assert place.bank.available("alice") == 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense\n", "line 1 is no line of an export"),
        ('{"object":"end","lines":1,"totals":{}}\n', "is not what `bursar export` writes"),
        ('{"object":"export","version":9,"id":"x","tenant":"t","at":"2026-01-01T00:00:00Z"}\n', "version 9"),
    ],
)
def test_what_is_no_export(place: Place, bursar: Bursar, tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "x"
    file.write_text(text)
    assert told in bursar("import", file, *place.names, code=1).err
    assert "Cannot read" in bursar("import", tmp_path / "nowhere", *place.names, code=2).err
    assert "no client" in bursar("import", file, "--tenant", place.tenant, "--client", "nobody", code=1).err


def test_pages_of_a_large_tenant_leave_nothing_out(
    moved: Bank, bursar: Bursar, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [msgspec.json.decode(line) for line in export(bursar, moved).splitlines()]
    monkeypatch.setattr(exporting, "PAGE", 1)
    paged = [msgspec.json.decode(line) for line in export(bursar, moved).splitlines()]
    assert paged[1:] == whole[1:]
    assert whole[-1]["lines"] == len(whole)
    assert whole[-1]["totals"] == {"diamonds": "7", "gold": "155"}


def test_the_journal_is_every_command_with_its_hash(
    moved: Bank, bursar: Bursar, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.order("spend", "alice", 1)
    monkeypatch.setattr(exporting, "JOURNAL_PAGE", 3)
    *records, end = [msgspec.json.decode(line) for line in export(bursar, moved, "--journal").splitlines()]
    seqs = [seq for (seq,) in moved.rows("SELECT seq FROM commands WHERE tenant_id = %s ORDER BY 1", moved.tenant)]
    assert end == {"object": "end", "commands": len(seqs)}
    hashes = moved.rows(
        "SELECT encode(t.hash, 'hex') FROM commands LEFT JOIN transfers t USING (seq) WHERE commands.tenant_id = %s"
        " ORDER BY seq",
        moved.tenant,
    )
    assert [(record["transfer"] or {}).get("hash") for record in records] == [hash_ for (hash_,) in hashes]
    assert sum(int(entry["amount"]) for record in records if record["transfer"] for entry in
               record["transfer"]["entries"]) == 0  # fmt: skip
    assert records[-1]["command"]["status"] == "pending"
    rest = export(bursar, moved, "--journal", "--after", records[2]["command"]["id"]).splitlines()
    assert [msgspec.json.decode(line) for line in rest[:-1]] == records[3:]
