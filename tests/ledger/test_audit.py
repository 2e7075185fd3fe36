"""The audit finds what it is for: each invariant is broken by hand once, and the audit names that one and no other."""

import json

import pytest
from sqlalchemy import Engine
from typer import Typer
from typer.testing import CliRunner

from bursar.audit import audit as audit_command
from ledger import audit, cancelling, db
from ledger.audit.invariant import Invariant
from runtime.settings import settings
from tests.books import Bank
from tests.ledger.tampering import account_id, broken, by_hand, move, write_entry, write_transfer
from tests.ledger.tampering import engine as engine


@pytest.fixture
def bank(own_bank: Bank) -> Bank:
    """A database with a history: applied and rejected commands, several accounts, one command pending."""
    own_bank.top_up("alice", 100)
    own_bank.top_up("bob", 50)
    own_bank.spend("alice", 30)
    own_bank.spend("bob", 1_000)
    own_bank.transfer("alice", "bob", 5)
    own_bank.order("spend", "alice", 1)
    return own_bank


def test_a_ledger_that_nobody_broke_passes(bank: Bank, engine: Engine) -> None:
    findings = audit.audit(engine)
    assert [finding.number for finding in findings] == list(range(1, 13))
    assert all(finding.holds for finding in findings)
    checked = {finding.number: finding.checked for finding in findings}
    assert (checked[1], checked[4], checked[6], checked[8]) == (4, 6, 6, 4)
    assert checked[2] == 6 * 8 + 2  # a shard per partition of six system wallets, and two players


def test_1_a_transfer_that_does_not_balance(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    write_entry(bank, account_id(bank, "@treasury", 2), bank.one("SELECT min(seq) FROM transfers"), 7)
    assert list(broken(engine)) == [1]


def test_1_what_one_transfer_lacks_another_cannot_make_up_for(bank: Bank, engine: Engine) -> None:
    bank.open_asset("diamonds")
    by_hand(bank)
    first, second = (seq for (seq,) in bank.rows("SELECT seq FROM transfers ORDER BY seq LIMIT 2"))
    gold, diamonds = (
        id_
        for (id_,) in bank.rows("""
            SELECT max(a.id) FROM accounts a JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
            WHERE w.code = '@exchange' GROUP BY s.code ORDER BY s.code DESC
        """)
    )
    for seq, account, amount in ((first, gold, -7), (first, diamonds, 7), (second, gold, 7)):
        write_entry(bank, account, seq, amount)
    (finding,) = (finding for finding in audit.audit(engine) if finding.number == 1)
    assert sorted((breach["seq"], breach["asset"], int(breach["total"])) for breach in finding.breaches) == [
        (first, "diamonds", 7), (first, "gold", -7), (second, "gold", 7)
    ]  # fmt: skip


def test_2_an_entry_in_another_asset(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    bank.do("UPDATE entries SET asset_id = 999999 WHERE account_id = %s AND version = 1", account_id(bank, "bob"))
    found = broken(engine)
    assert found[2] == ["entries in another asset"]
    assert len(found[1]) == 2, "also of an asset that nobody knows"


def test_2_a_balance_without_any_entry(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE accounts SET posted = 5 WHERE id = (SELECT max(id) FROM accounts WHERE version = 0)")
    assert broken(engine) == {2: ["posted is 5, the entries sum to 0"]}


def test_2_a_balance_that_its_entries_do_not_make(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE accounts SET posted = posted + 1 WHERE id = %s", account_id(bank, "alice"))
    assert broken(engine) == {2: ["posted is 66, the entries sum to 65"]}


def test_2_a_version_that_its_entries_do_not_reach(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE accounts SET version = version + 1 WHERE id = %s", account_id(bank, "bob"))
    assert broken(engine) == {2: ["version is 3, the last entry has 2"]}


def test_2_a_gap_in_the_versions(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    alice = account_id(bank, "alice")
    bank.do("UPDATE entries SET version = 4 WHERE account_id = %s AND version = 3", alice)
    bank.do("UPDATE accounts SET version = 4 WHERE id = %s", alice)
    assert broken(engine) == {2: ["version 4 follows 2"]}


def test_2_a_balance_after_that_is_none(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    bank.do("UPDATE entries SET balance_after = 71 WHERE account_id = %s AND version = 2", account_id(bank, "alice"))
    assert broken(engine) == {2: ["version 2: 100 + -30 is not 71", "version 3: 71 + -5 is not 65"]}


def test_2_a_time_that_runs_backwards(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    bank.do(
        "UPDATE entries SET at = at - interval '1 hour' WHERE account_id = %s AND version = 2", account_id(bank, "bob")
    )
    assert broken(engine) == {2: ["version 2 is of a time before that of version 1"]}


def test_2_an_entry_of_no_account(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    bank.do("UPDATE entries SET account_id = 999999 WHERE account_id = %s", account_id(bank, "bob"))
    found = broken(engine)
    assert list(found) == [2]
    assert sorted(found[2])[0] == "entries of an account that does not exist"


def test_3_something_held_without_a_hold(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE accounts SET held = 5 WHERE id = %s", account_id(bank, "alice"))
    assert broken(engine) == {3: ["5 held, the last entry says 0", "5 held, the open holds have 0"]}


def test_3_a_player_who_was_below_zero_for_a_moment(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    bank.do("ALTER TABLE accounts DROP CONSTRAINT ck_accounts_not_overspent")
    for amount in (-70, 70):
        move(bank, "alice", write_transfer(bank, "alice", amount), amount)
    assert broken(engine) == {3: ["version 4 left -5"]}


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM outcomes WHERE status = 'rejected'", "neither pending nor with an outcome"),
        ("DELETE FROM pending", "neither pending nor with an outcome"),
        ("INSERT INTO pending SELECT partition, seq FROM commands WHERE seq = (SELECT min(seq) FROM outcomes)",
         "pending, with an outcome"),
        ("UPDATE pending SET partition = 7 - partition", "pending in another partition than its own"),
        ("UPDATE outcomes SET status = 'rejected' WHERE seq = (SELECT min(seq) FROM transfers)",
         "not applied, with a transfer"),
        ("DELETE FROM transfers WHERE seq = (SELECT min(seq) FROM transfers)", "applied, without its transfer"),
        ("UPDATE outcomes SET status = 'applied' WHERE status = 'rejected'", "applied, without its transfer"),
        ("UPDATE transfers SET partition = 7 - partition WHERE seq = (SELECT min(seq) FROM transfers)",
         "its transfer names another tenant or partition"),
        ("INSERT INTO outcomes (seq, status, code, at) VALUES (999999, 'rejected', 'expired', now())",
         "no such command was accepted"),
        ("INSERT INTO pending (partition, seq, size) VALUES (0, 999999, 2)", "no such command was accepted"),
        ("UPDATE transfers SET tenant_id = tenant_id + 1 WHERE seq = (SELECT min(seq) FROM transfers)",
         "its transfer names another tenant or partition"),
    ],
)  # fmt: skip
def test_4_a_command_without_exactly_one_fate(bank: Bank, engine: Engine, statement: str, what: str) -> None:
    by_hand(bank)
    bank.sql.execute(statement.encode())
    assert broken(engine) == {4: [what]}


def test_4_a_transfer_without_entries_or_with_a_single_one(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    seq = write_transfer(bank, "alice", -1)
    assert broken(engine) == {4: ["applied, its transfer without entries"]}
    bank.do("UPDATE commands SET type = 'close' WHERE seq = %s", seq)
    assert broken(engine) == {}, "a wallet that had nothing was closed"
    write_entry(bank, account_id(bank, "alice"), seq, 0)
    assert broken(engine) == {4: ["applied, its transfer with a single entry"]}
    bank.do("UPDATE commands SET type = 'release' WHERE seq = %s", seq)
    assert broken(engine) == {}


def test_4_entries_of_a_command_that_was_refused(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    seq = write_transfer(bank, "alice", -1)
    move(bank, "alice", seq, -1)
    bank.do("DELETE FROM transfers WHERE seq = %s", seq)
    bank.do("UPDATE outcomes SET status = 'rejected' WHERE seq = %s", seq)
    assert broken(engine) == {4: ["not applied, with a transfer"]}


def test_4_half_a_group_applied(bank: Bank, engine: Engine) -> None:
    spends = [bank.new("spend", "alice", 1), bank.new("spend", "alice", 1)]
    (first, _) = bank.group(spends)
    assert broken(engine) == {}
    by_hand(bank)
    refused = "UPDATE commands SET group_seq = %s WHERE seq = (SELECT seq FROM outcomes WHERE status = 'rejected')"
    bank.do(refused, first.seq)
    assert broken(engine) == {4: ["of a group of 3, 2 are applied"]}


def test_4_a_group_waits_under_its_first_command(bank: Bank, engine: Engine) -> None:
    bank.accept_group([bank.new("spend", "bob", 1), bank.new("spend", "bob", 1)])
    assert broken(engine) == {}
    bank.do("UPDATE pending SET size = 1 WHERE size = 2")
    assert broken(engine) == {4: ["neither pending nor with an outcome"]}


def test_4_a_tombstone_that_came_to_life(bank: Bank, engine: Engine) -> None:
    cancelling.cancel_key(bank.sql, tenant_id=bank.tenant, client_id=bank.client, key="never seen")
    assert broken(engine) == {}
    by_hand(bank)
    bank.do("UPDATE outcomes SET status = 'rejected' WHERE status = 'cancelled'")
    assert broken(engine) == {4: ["a tombstone, not cancelled"]}


def test_4_two_outcomes_of_one_command(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    bank.do("ALTER TABLE outcomes DROP CONSTRAINT pk_outcomes")
    bank.do("INSERT INTO outcomes SELECT * FROM outcomes WHERE status = 'rejected'")
    assert broken(engine) == {4: ["2 outcomes"]}


@pytest.mark.parametrize(("seconds", "found"), [(30, [5]), (5, [])])
def test_5_a_command_applied_before_one_that_was_accepted_long_before_it(
    bank: Bank, engine: Engine, seconds: int, found: list[int]
) -> None:
    """Accepted within the time that an accepting statement may take, the two were concurrent: no order to break."""
    by_hand(bank)
    earlier = write_transfer(bank, "alice", -1, accepted_s_ago=60)
    later = write_transfer(bank, "alice", -1, accepted_s_ago=60 - seconds)
    move(bank, "alice", later, -1)
    move(bank, "alice", earlier, -1)
    assert list(broken(engine)) == found


def test_5_what_others_send_keeps_its_own_order(bank: Bank, engine: Engine) -> None:
    """A credit from another wallet's command comes when that one is drained."""
    by_hand(bank)
    seq = write_transfer(bank, "bob", -1, accepted_s_ago=60)
    move(bank, "alice", write_transfer(bank, "alice", -1), -1)
    write_entry(bank, account_id(bank, "bob"), seq, -1)
    write_entry(bank, account_id(bank, "alice"), seq, 1)
    assert broken(engine) == {}


def test_6_a_key_used_twice(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    first, second = bank.order("spend", "alice", 1), bank.order("spend", "alice", 1)
    bank.do("ALTER TABLE commands DROP CONSTRAINT uq_commands_client_id_idempotency_key")
    bank.do(
        "UPDATE commands SET idempotency_key = (SELECT idempotency_key FROM commands WHERE seq = %s) WHERE seq = %s",
        first,
        second,
    )
    assert list(broken(engine)) == [6]


def test_6_two_clients_may_use_one_key(bank: Bank, engine: Engine) -> None:
    for client in (bank.client, bank.new_client()):
        bank.order("spend", "alice", 1, key="the same", client_id=client)
    assert broken(engine) == {}


def test_every_check_has_one_snapshot_no_time_limit_and_settings_of_its_own(bank: Bank) -> None:
    settings = ("transaction_isolation", "transaction_read_only", "statement_timeout", "enable_indexscan")
    shown = " || ', ' || ".join(f"current_setting('{name}')" for name in settings)
    checks = [
        Invariant(number, "a look at the settings", "SELECT 1", f"SELECT {shown} AS what", before=before)
        for number, before in ((1, "SET LOCAL enable_indexscan = off"), (2, ""))
    ]
    engine = db.engine(bank.url, application="test-audit")
    findings = audit.audit(engine, checks)
    engine.dispose()
    assert [finding.breaches[0]["what"] for finding in findings] == [
        "repeatable read, on, 0, off",
        "repeatable read, on, 0, on",
    ]


def test_breaches_without_end_are_cut_short(bank: Bank, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BREACHES_MAX", 2)
    bank.do("UPDATE accounts SET version = version + 1")
    (finding,) = (finding for finding in audit.audit(engine) if not finding.holds)
    assert (len(finding.breaches), finding.truncated) == (2, True)


def test_the_audit_can_write_nothing_and_waits_for_nobody(bank: Bank, engine: Engine) -> None:
    with bank.another_drain() as drain:
        drain.claim()
        drain.apply()  # locks held, nothing committed
        assert broken(engine) == {}
    with engine.connect() as connection:  # it leaves no setting behind, on a pooled connection either
        assert connection.exec_driver_sql("SHOW enable_indexscan").scalar_one() == "on"
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "off"


def test_the_command_line_reports_and_fails(bank: Bank, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_DATABASE_URL", bank.url)
    monkeypatch.setenv("BURSAR_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    app = Typer()
    app.command()(audit_command)
    try:
        clean = CliRunner().invoke(app, ["--json"])
        assert (clean.exit_code, json.loads(clean.stdout)["holds"]) == (0, True)
        bank.do("UPDATE accounts SET held = 5 WHERE id = %s", account_id(bank, "alice"))
        failed = CliRunner().invoke(app, ["--json"])
        assert failed.exit_code == 1
        (third,) = (i for i in json.loads(failed.stdout)["invariants"] if not i["holds"])
        assert (third["number"], third["breaches"][0]["wallet"]) == (3, "alice")
        for_people = CliRunner().invoke(app, [])
        assert for_people.exit_code == 1
        assert "5 held, the open holds have 0" in for_people.stdout
    finally:
        settings.cache_clear()
