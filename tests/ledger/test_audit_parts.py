"""The audit in parts finds what the audit of one snapshot finds, wherever the cuts are, and goes on where it was."""

from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine
from typer import Typer
from typer.testing import CliRunner

from bursar.audit import audit as audit_command
from ledger import audit
from ledger.audit import parts
from ledger.audit.parts import Progress
from runtime.settings import settings
from tests.books import Bank
from tests.ledger.tampering import account_id, by_hand, write_entry
from tests.ledger.tampering import engine as engine

ALL = [invariant.number for invariant in audit.INVARIANTS]


@pytest.fixture
def bank(own_bank: Bank, monkeypatch: pytest.MonkeyPatch) -> Bank:
    """A database with a history, and parts so small that it has many."""
    own_bank.top_up("alice", 100)
    own_bank.top_up("bob", 50)
    for n in range(6):
        own_bank.transfer("alice", "bob", n + 1)
    own_bank.group([own_bank.new("spend", "bob", 1), own_bank.new("spend", "bob", 2)])
    own_bank.hold("alice", 5)
    own_bank.accept_group([own_bank.new("spend", "bob", 1), own_bank.new("spend", "bob", 2)])
    own_bank.order("spend", "alice", 1)
    monkeypatch.setattr(parts, "STEP", 4)
    return own_bank


def in_parts(engine: Engine, numbers: list[int] = ALL) -> list[audit.Finding]:
    progress = parts.begin(engine, numbers)
    parts.go_on(engine, progress, done=lambda _: None)
    return progress.findings


def found(findings: list[audit.Finding]) -> dict[int, list[dict[str, str]]]:
    plain = {f.number: [{name: str(value) for name, value in row.items()} for row in f.breaches] for f in findings}
    return {number: sorted(rows, key=str) for number, rows in plain.items() if rows}


def test_every_part_is_looked_at_once(bank: Bank, engine: Engine) -> None:
    whole = audit.audit(engine)
    cut = in_parts(engine)
    assert [(f.number, f.name, f.checked) for f in cut] == [(f.number, f.name, f.checked) for f in whole]
    assert all(f.holds for f in cut)
    numbers = [part.number for part in parts.begin(engine, ALL).parts]
    assert {number for number in ALL if numbers.count(number) > 1} == {1, 2, 3, 4, 5, 6, 8}
    assert len(numbers) > 40


def test_what_is_broken_is_found_wherever_it_is(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    seqs = [seq for (seq,) in bank.rows("SELECT seq FROM transfers ORDER BY seq")]
    write_entry(bank, account_id(bank, "@treasury", 2), seqs[3], 7)
    bank.do("UPDATE accounts SET posted = posted + 1 WHERE id = %s", account_id(bank, "alice"))
    bank.do("UPDATE accounts SET held = held + 1 WHERE id = %s", account_id(bank, "bob"))
    bank.do("DELETE FROM outcomes WHERE seq = %s", seqs[5])
    bank.do("DELETE FROM entries WHERE seq = %s", seqs[6])
    bank.do("DELETE FROM transfers WHERE seq = (SELECT max(seq) FROM transfers)")
    whole = found(audit.audit(engine))
    assert {1, 2, 3, 4, 8} <= set(whole)
    assert found(in_parts(engine)) == whole


def test_a_key_used_twice_is_found_across_parts(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    bank.do("ALTER TABLE commands DROP CONSTRAINT uq_commands_client_id_idempotency_key")
    bank.do("UPDATE commands SET idempotency_key = 'same' WHERE seq IN (2, 9)")
    (row,) = found(in_parts(engine, [6]))[6]
    assert (row["idempotency_key"], row["commands"], row["first_seq"]) == ("same", "2", "2")


def test_it_goes_on_where_it_was_and_what_was_seen_is_kept(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE accounts SET posted = posted + 1 WHERE id = %s", account_id(bank, "alice"))

    class Killed(Exception):
        pass

    kept: list[bytes] = []

    def until(progress: Progress) -> None:
        kept.append(msgspec.json.encode(progress))
        if progress.done == len(progress.parts) // 2:
            raise Killed

    progress = parts.begin(engine, ALL)
    with pytest.raises(Killed):
        parts.go_on(engine, progress, done=until)
    again = msgspec.json.decode(kept[-1], type=Progress)
    bank.top_up("alice", 1)  # the ledger lives
    looked: list[int] = []
    parts.go_on(engine, again, done=lambda now: looked.append(now.done))
    assert looked == list(range(len(progress.parts) // 2 + 1, len(progress.parts) + 1))
    assert [finding.number for finding in again.findings if not finding.holds] == [2]


def test_what_another_database_began_is_not_gone_on_with(bank: Bank, engine: Engine) -> None:
    progress = parts.begin(engine, [1])
    progress.database = "another"
    with pytest.raises(parts.Another):
        parts.go_on(engine, progress, done=lambda _: None)


def test_the_command_keeps_its_parts_in_a_file(
    bank: Bank, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Typer()
    app.command()(audit_command)
    monkeypatch.setenv("BURSAR_DATABASE_URL", bank.url)
    monkeypatch.setenv("BURSAR_REDIS_URL", "redis://unused")
    settings.cache_clear()
    file = tmp_path / "audit.json"
    progress = parts.begin(engine, ALL)
    file.write_bytes(msgspec.json.encode(progress))
    try:
        done = CliRunner().invoke(app, ["--json", "--resume", str(file)])
        assert done.exit_code == 0, done.output
        assert [each["holds"] for each in msgspec.json.decode(done.stdout)["invariants"]] == [True] * len(ALL)
        assert not file.exists()
        file.write_text("something else")
        assert CliRunner().invoke(app, ["--resume", str(file)]).exit_code == 2
        progress.database = "another"
        file.write_bytes(msgspec.json.encode(progress))
        other = CliRunner().invoke(app, ["--resume", str(file)])
        assert other.exit_code == 2
        assert "is of another audit" in other.stderr
        assert CliRunner().invoke(app, ["--resume", "/nowhere/audit.json"]).exit_code == 2
    finally:
        settings.cache_clear()
