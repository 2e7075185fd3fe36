"""A failed command is asked again as a new command, once, and its own outcome stays what it is."""

from collections.abc import Generator, Sequence

import psycopg
import pytest

from ledger import changes, db, inbox, journal, requeuing
from ledger.audit import audit
from ledger.changes import By
from ledger.commands import LEDGER_CLIENT, read_options
from ledger.ids import command_id, requeue_key
from ledger.inbox import Claim
from ledger.requeuing import NotFailed, Requeued
from tests.books import ALL, Bank
from tests.ledger.races import Started, wait_for_a_waiter

WHY = "the defect of Tuesday is mended"


class Operator:
    """A connection to requeue on, as the api has one."""

    def __init__(self, bank: Bank) -> None:
        self.connection = db.connect(bank.url, application="test-requeue")
        self.by = By(bank.client, None, WHY)

    def requeue(self, seq: int) -> Requeued:
        with self.connection.transaction():
            return requeuing.requeue(self.connection, seq, by=self.by)


@pytest.fixture
def desk(bank: Bank) -> Generator[Operator]:
    operator = Operator(bank)
    yield operator
    operator.connection.close()


def fail(bank: Bank) -> None:
    """Every pending command, as a worker quarantines poison: one by one, groups whole."""
    with bank.drains.transaction():
        claim = inbox.claim(bank.drains, ALL, max_rows=500)
        assert isinstance(claim, Claim)
        for unit in inbox.units(claim.commands):
            journal.quarantine(bank.drains, unit, claim.now, task_id=None)


def failed(bank: Bank, kind: str, wallet: str, amount: int, **more: object) -> int:
    seq = bank.order(kind, wallet, amount, **more)
    fail(bank)
    return seq


def listed(bank: Bank, limit: int = 10, before: int | None = None) -> Sequence[requeuing.Failed]:
    return bank._register(lambda to: requeuing.failed(to, bank.tenant, before=before, limit=limit))


def id_of(bank: Bank, seq: int) -> str:
    return command_id(seq, bank.one("SELECT accepted_at FROM commands WHERE seq = %s", seq))


# --- once, and as it was asked -------------------------------------------------------------------------------------


def test_what_failed_is_applied_by_a_new_command(bank: Bank, desk: Operator) -> None:
    bank.top_up("alice", 100)
    seq = failed(bank, "spend", "alice", 30, reference="order-9", metadata='{"a": 1}', credits_order="oldest_first")
    requeued = desk.requeue(seq)
    assert (requeued.new, requeued.partition) == (True, bank.partition("alice"))
    assert bank.pending() == [requeued.seq]
    bank.drain()
    assert bank.outcome(requeued.seq).code == "applied"
    assert (bank.outcome(seq).status, bank.outcome(seq).code) == ("failed", "internal_error"), "for ever"
    assert bank.available("alice") == 70
    columns = """
        SELECT tenant_id, client_id, partition, type, request_hash, wallet, to_wallet, asset, amount, reference,
               metadata::text, expires_at, ref_seq FROM commands WHERE seq = %s
    """
    assert bank.rows(columns, seq) == bank.rows(columns, requeued.seq)
    options = read_options(bank.one("SELECT options::text FROM commands WHERE seq = %s", requeued.seq))
    assert (options.credits_order, options.requeue_of) == ("oldest_first", id_of(bank, seq))
    bank.assert_settled()


def test_again_and_again_it_is_the_same_one(bank: Bank, desk: Operator) -> None:
    seq = failed(bank, "top_up", "alice", 5)
    first = desk.requeue(seq)
    assert desk.requeue(seq) == Requeued(first.seq, first.partition, new=False)
    bank.drain()
    assert desk.requeue(seq) == Requeued(first.seq, first.partition, new=False)
    assert bank.available("alice") == 5
    bank.assert_settled()


@pytest.mark.parametrize("grouped", [False, True])
def test_of_two_at_once_one_makes_it(bank: Bank, desk: Operator, grouped: bool) -> None:
    orders = [bank.new("top_up", "alice", n) for n in (1, 2)]
    seqs = [answer.seq for answer in (bank.accept_group(orders) if grouped else bank.accept(orders)) if answer]
    fail(bank)
    other = Operator(bank)
    try:
        with desk.connection.transaction():
            first = requeuing.requeue(desk.connection, seqs[0], by=desk.by)
            second = Started(lambda: other.requeue(seqs[0]))
            wait_for_a_waiter(bank)
        with second:
            assert second.result() == Requeued(first.seq, first.partition, new=False)
    finally:
        other.connection.close()
    assert len(bank.pending()) == (2 if grouped else 1)
    assert bank.one("SELECT count(*) FROM changes WHERE tenant_id = %s", bank.tenant) == (2 if grouped else 1)
    bank.drain()
    bank.assert_settled()


def test_one_that_rolls_back_leaves_it_to_the_next(bank: Bank, desk: Operator) -> None:
    seq = failed(bank, "top_up", "alice", 5)
    with desk.connection.transaction() as inner:
        requeuing.requeue(desk.connection, seq, by=desk.by)
        raise psycopg.Rollback(inner)
    assert bank.pending() == []
    assert desk.requeue(seq).new
    bank.drain()
    assert bank.available("alice") == 5


def test_a_group_is_requeued_whole_whichever_of_it_is_named(bank: Bank, desk: Operator) -> None:
    bank.top_up("alice", 100)
    group = [bank.new("spend", "alice", n) for n in (1, 2, 3)]
    seqs = [answer.seq for answer in bank.accept_group(group) if answer]
    fail(bank)
    middle = desk.requeue(seqs[1])
    first, last = desk.requeue(seqs[0]), desk.requeue(seqs[2])
    assert (middle.new, first.new, last.new) == (True, False, False)
    again = [first.seq, middle.seq, last.seq]
    assert bank.pending() == again == sorted(again)
    assert bank.rows("SELECT DISTINCT group_seq FROM commands WHERE seq = ANY(%s)", again) == [(first.seq,)]
    bank.drain()
    assert bank.codes(again) == ["applied"] * 3
    assert bank.available("alice") == 94
    bank.assert_settled()


def test_what_fails_again_is_requeued_in_its_turn(bank: Bank, desk: Operator) -> None:
    seq = failed(bank, "top_up", "alice", 5)
    second = desk.requeue(seq).seq
    fail(bank)
    third = desk.requeue(second)
    assert third.new
    assert desk.requeue(seq).seq == second
    bank.drain()
    assert [(each.seq, each.requeued_as) for each in listed(bank)] == [(second, third.seq), (seq, second)]
    assert bank.available("alice") == 5
    bank.assert_settled()


def test_a_hold_whose_end_failed_ends_by_a_requeue(bank: Bank, desk: Operator) -> None:
    """The ledger asks for the end of a hold once: nothing else would give the credits back."""
    bank.top_up("alice", 100)
    hold = bank.hold("alice", 40)
    bank.do("UPDATE holds SET expires_at = now() WHERE seq = %s", hold.seq)
    bank.enqueue_due()
    fail(bank)
    assert bank.expire_due() == []
    (end,) = listed(bank)
    assert (end.type, end.client) == ("expire_hold", None)
    assert desk.requeue(end.seq).new
    bank.drain()
    assert bank.hold_status(hold)[0] == "expired"
    assert bank.available("alice") == 100
    bank.assert_settled()


def test_what_came_too_late_stays_too_late(bank: Bank, desk: Operator) -> None:
    bank.top_up("alice", 100)
    seq = failed(bank, "spend", "alice", 1, expires_at=bank.in_seconds(-1))
    again = desk.requeue(seq).seq
    bank.drain()
    assert bank.outcome(again).code == "expired"


# --- what is not requeued ------------------------------------------------------------------------------------------


def test_only_what_failed_is_requeued(bank: Bank, desk: Operator) -> None:
    applied, rejected = bank.top_up("alice", 1).seq, bank.spend("alice", 9).seq
    pending = bank.order("spend", "alice", 1)
    for seq, status in ((applied, "applied"), (rejected, "rejected"), (pending, "pending")):
        with pytest.raises(NotFailed, match=status):
            desk.requeue(seq)
    with pytest.raises(LookupError):
        desk.requeue(2**60)
    assert bank.pending() == [pending]


def test_no_client_can_send_its_key() -> None:
    """A key of a client's has no spaces (api.routes.commands.bare_key), so none can stand in the way of a requeue."""
    assert " " in requeue_key("01a1fc89-fb3f-8c0d-8000-00000000000b")


# --- who and why ---------------------------------------------------------------------------------------------------


def test_who_and_why_is_kept_with_the_wallet(bank: Bank, desk: Operator) -> None:
    seq = failed(bank, "top_up", "alice", 5)
    again = desk.requeue(seq).seq
    (change,) = bank._register(lambda to: changes.of_wallet(to, bank.tenant, "alice", before=None, limit=9))
    assert (change.member, change.reason, change.seq) == ("requeue", WHY, again)
    assert change.before == f'"{id_of(bank, seq)}"'
    assert change.client.startswith("client ")


def test_who_has_no_key_is_the_command_line(bank: Bank, desk: Operator) -> None:
    desk.by = By(LEDGER_CLIENT, None, WHY)
    desk.requeue(failed(bank, "top_up", "alice", 5))
    (change,) = bank._register(lambda to: changes.of_wallet(to, bank.tenant, "alice", before=None, limit=9))
    assert change.client == "command line"


def test_the_list_of_failed_ones_goes_from_page_to_page(bank: Bank, desk: Operator) -> None:
    seqs = [failed(bank, "top_up", "alice", n) for n in (1, 2, 3)]
    requeued = desk.requeue(seqs[1])
    first, second = listed(bank, limit=2)
    (third,) = listed(bank, limit=2, before=second.seq)
    assert [each.seq for each in (first, second, third)] == seqs[::-1]
    assert [each.requeued_as for each in (first, second, third)] == [None, requeued.seq, None]
    assert (third.id, third.amount, third.wallet) == (id_of(bank, seqs[0]), 1, "alice")


def test_the_books_stay_whole(own_bank: Bank) -> None:
    operator = Operator(own_bank)
    engine = db.engine(own_bank.url, application="test-audit")
    try:
        own_bank.top_up("alice", 100)
        seqs = [answer.seq for answer in own_bank.accept_group([own_bank.new("spend", "alice", 1)] * 1) if answer]
        fail(own_bank)
        operator.requeue(seqs[0])
        own_bank.drain()
        assert [finding for finding in audit(engine) if not finding.holds] == []
    finally:
        engine.dispose()
        operator.connection.close()
