"""What PostgreSQL itself refuses, whoever asks: a bug of ours, or a hand at psql."""

from typing import LiteralString

import psycopg
import pytest

from ledger import references
from ledger.commands import SYSTEM_WALLETS
from ledger.errors import BrokenInvariant
from tests.books import Bank

RECORDS = ("commands", "outcomes", "transfers", "entries", "lot_entries", "changes")
CHANGES = (
    "UPDATE {table} SET seq = seq",
    "UPDATE {table} SET seq = seq WHERE false",
    "DELETE FROM {table}",
    "DELETE FROM {table} WHERE false",
    "TRUNCATE {table}",
    "TRUNCATE {table} CASCADE",
    "MERGE INTO {table} t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("table", RECORDS)
def test_records_refuse_every_change(bank: Bank, table: LiteralString, change: LiteralString) -> None:
    bank.top_up("alice", 100)
    if table == "commands" and "seq =" in change:
        change = "UPDATE {table} SET amount = amount + 1"  # its seq is refused by itself: GENERATED ALWAYS
    with pytest.raises(psycopg.errors.RestrictViolation, match=f"{table} is append-only"):
        bank.do(change.replace("{table}", table))
    bank.assert_settled()


def test_a_record_cannot_be_overwritten_by_an_upsert(bank: Bank) -> None:
    seq = bank.top_up("alice", 100).seq
    with pytest.raises(psycopg.errors.RestrictViolation):
        bank.do(
            """INSERT INTO outcomes (seq, status, code, at) VALUES (%s, 'failed', 'internal_error', now())
               ON CONFLICT (seq) DO UPDATE SET status = EXCLUDED.status""",
            seq,
        )
    assert bank.outcome(seq).status == "applied"


# --- double entry ------------------------------------------------------------------------------------------------

Line = tuple[int, int, int, int, int]  # account, version, seq, asset, amount


def write_entries(bank: Bank, *lines: Line) -> None:
    """By hand, in one statement."""
    bank.do(
        """INSERT INTO entries (account_id, version, seq, asset_id, amount, balance_after, at)
           SELECT a, v, s, t, m, 0, now()
           FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::int[], %s::bigint[]) AS e (a, v, s, t, m)""",
        *(list(column) for column in zip(*lines, strict=True)),
    )


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([(1, 1, 7, 1, 30)], id="one side only"),
        pytest.param([(1, 1, 7, 1, -30), (2, 1, 7, 1, 29)], id="a unit lost"),
        pytest.param([(1, 1, 7, 1, -30), (2, 1, 7, 1, 31)], id="a unit made"),
        pytest.param([(1, 1, 7, 1, -30), (2, 1, 7, 2, 30)], id="another asset"),
        pytest.param([(1, 1, 7, 1, -30), (2, 1, 8, 1, 30)], id="another transfer"),
        pytest.param([(1, 1, 7, 1, -5), (2, 1, 7, 1, 5), (1, 2, 8, 1, 5)], id="one broken beside a sound one"),
    ],
)
def test_entries_that_do_not_balance_are_refused(bank: Bank, lines: list[Line]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="does not balance") as refusal:
        write_entries(bank, *lines)
    assert refusal.value.diag.constraint_name == "transfer_balances"
    assert bank.one("SELECT count(*) FROM entries WHERE seq IN (7, 8) AND balance_after = 0") == 0


def test_entries_that_balance_are_taken(own_bank: Bank) -> None:
    write_entries(own_bank, (1, 1, 7, 1, -30), (2, 1, 7, 1, 10), (3, 1, 7, 1, 20), (1, 2, 7, 2, 5), (4, 1, 7, 2, -5))
    assert own_bank.one("SELECT count(*) FROM entries") == 5


def test_a_version_of_an_account_is_written_once(bank: Bank) -> None:
    bank.top_up("alice", 100)
    account, asset = bank.rows("SELECT account_id, asset_id FROM entries WHERE amount = 100 ORDER BY seq DESC")[0]
    with pytest.raises(psycopg.errors.UniqueViolation, match="pk_entries"):
        write_entries(bank, (account, 1, 7, asset, 30), (2, 1, 7, asset, -30))


# --- one outcome, one transfer, one key --------------------------------------------------------------------------


def test_a_command_has_one_outcome(bank: Bank) -> None:
    seq = bank.spend("nobody", 1).seq
    with pytest.raises(psycopg.errors.UniqueViolation, match="pk_outcomes"):
        bank.do("INSERT INTO outcomes (seq, status, code, at) VALUES (%s, 'applied', 'applied', now())", seq)


def test_a_command_drained_twice_by_mistake_leaves_one_outcome_and_one_transfer(bank: Bank) -> None:
    """A row put back in the queue by hand breaks its drain; it credits nobody twice."""
    seq = bank.top_up("alice", 100).seq
    bank.do("INSERT INTO pending (partition, seq) SELECT partition, seq FROM commands WHERE seq = %s", seq)
    with pytest.raises(psycopg.errors.UniqueViolation):
        bank.drain()
    assert bank.available("alice") == 100


def test_an_outcome_has_a_status_that_clients_know(bank: Bank) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="ck_outcomes_status"):
        bank.do("INSERT INTO outcomes (seq, status, code, at) VALUES (0, 'running', 'x', now())")


def test_a_clients_key_is_unique_for_whoever_writes(bank: Bank) -> None:
    seq = bank.order("top_up", "alice", 1)
    copy: LiteralString = """
        INSERT INTO commands
            (tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, asset, amount)
        SELECT tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, asset, amount
        FROM commands WHERE seq = %s
    """
    with pytest.raises(psycopg.errors.UniqueViolation, match="uq_commands_client_id_idempotency_key"):
        bank.do(copy, seq)


# --- balances ----------------------------------------------------------------------------------------------------


def set_balance(bank: Bank, wallet: str, change: LiteralString) -> None:
    bank.do(
        "UPDATE accounts SET "
        + change
        + """
        WHERE wallet_id = (SELECT id FROM wallets WHERE tenant_id = %s AND code = %s)""",
        bank.tenant,
        wallet,
    )


def test_no_hand_can_overspend_a_wallet(bank: Bank) -> None:
    bank.top_up("alice", 10)
    set_balance(bank, "alice", "posted = posted - 10")
    for change in ("posted = -1", "posted = posted - 1", "held = 1"):
        with pytest.raises(psycopg.errors.CheckViolation, match="ck_accounts_not_overspent"):
            set_balance(bank, "alice", change)


def test_nothing_can_be_held_below_zero(bank: Bank) -> None:
    bank.top_up("alice", 10)
    with pytest.raises(psycopg.errors.CheckViolation, match="ck_accounts_held"):
        set_balance(bank, "alice", "held = -1")


def test_held_credits_are_not_available(bank: Bank) -> None:
    bank.top_up("alice", 10)
    set_balance(bank, "alice", "held = 6")
    refused = bank.spend("alice", 5)
    assert (refused.code, refused.detail) == ("insufficient_funds", "available 4, needed 5")
    applied = bank.spend("alice", 4)
    assert applied.accounts == [
        {"wallet": "alice", "asset": "gold", "posted": "6", "held": "6", "available": "0", "version": 2}
    ]


def test_system_wallets_may_go_below_zero_and_players_never(bank: Bank) -> None:
    bank.top_up("alice", 10)
    may = bank.rows(
        """SELECT w.code, bool_and(a.allow_negative) FROM accounts a JOIN wallets w ON w.id = a.wallet_id
           WHERE w.tenant_id = %s GROUP BY 1 ORDER BY 1""",
        bank.tenant,
    )
    assert may == [*((wallet, True) for wallet in sorted(SYSTEM_WALLETS)), ("alice", False)]


def test_a_balance_that_was_changed_behind_the_drains_back_is_noticed(own_bank: Bank) -> None:
    """An account that vanishes between the lock and the write: rather no drain than a credit without a balance."""
    own_bank.top_up("alice", 10)
    own_bank.do("""
        CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER skip BEFORE UPDATE ON accounts FOR EACH ROW WHEN (OLD.shard = 0) EXECUTE FUNCTION skip();
    """)
    own_bank.order("spend", own_bank.wallet_in(3), 1)
    own_bank.order("top_up", "alice", 1)
    with pytest.raises(BrokenInvariant, match="2 balances changed, 1 were written"):
        own_bank.drain()
    assert own_bank.available("alice") == 10
    own_bank.assert_books_balance()


def test_a_reversal_that_was_noted_behind_the_drains_back_is_noticed(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is reversed of a command only grows: rather no drain than a second reversal that overwrites the first."""
    bank.top_up("alice", 100)
    spent = bank.spend("alice", 50)
    assert bank.reverse(spent, 30).status == "applied"
    monkeypatch.setattr(references, "_REVERSED", "SELECT seq, 0 FROM reversals WHERE seq = ANY(%b::bigint[])")
    seq = bank.accept([bank.new_about("reverse", spent, 30)])[0].seq
    with pytest.raises(BrokenInvariant, match="1 reversals, 0 were written"):
        bank.drain()
    monkeypatch.undo()
    bank.drain()
    assert bank.outcome(seq).code == "reversal_exceeded"
    bank.assert_settled()


def test_a_chain_without_a_head_is_noticed(own_bank: Bank) -> None:
    own_bank.do("DELETE FROM chain_heads WHERE partition = 3")
    own_bank.order("top_up", own_bank.wallet_in(3), 1)
    with pytest.raises(BrokenInvariant, match=r"partitions \[3\] only \[\] have a head"):
        own_bank.drain()
