"""`bursar commands`: one command's life, those that failed or wait, and what may be done about them."""

import pytest

from ledger.ids import command_id, event_id, transfer_id
from tests.books import Bank
from tests.desk.conftest import Bursar
from tests.ledger.listening import listen
from tests.ledger.test_requeuing import fail, failed

WHY = ("--reason", "mended in 1.2.3", "--by", "ada")


def id_of(bank: Bank, seq: int) -> str:
    return command_id(seq, bank.one("SELECT accepted_at FROM commands WHERE seq = %s", seq))


# --- show ------------------------------------------------------------------------------------------------------------


def test_the_life_of_a_command(bank: Bank, bursar: Bursar, tenant: str, client_name: str) -> None:
    endpoint = listen(bank)
    seq = bank.top_up("alice", 1_000, key="k-life", reference="order [9]").seq
    bank.do(
        "INSERT INTO attempts (endpoint_id, seq, n, at, status, failure, took_ms, body)"
        " VALUES (%s, %s, 1, now(), 500, 'status', 12, '')",
        endpoint,
        seq,
    )
    bank.do("UPDATE deliveries SET attempts = 1 WHERE endpoint_id = %s", endpoint)
    at = bank.outcome(seq).at
    names = ("k-life", id_of(bank, seq), transfer_id(seq, at), event_id(seq, at))
    said = [bursar("commands", "show", name).out for name in names]
    assert len(set(said)) == 1
    for expected in (
        f"top_up {id_of(bank, seq)}: 1,000 gold of alice",
        f"from {tenant}: {client_name}, key k-life",
        "order [9]",
        "applied",
        "+1,000 gold alice, leaves 1,000 (version 1)",
        "-1,000 gold @treasury",
        f"event {event_id(seq, at)}",
        "answered 500, status in 12 ms",
    ):
        assert expected in said[0]
    shown = bursar("commands", "show", "k-life", "--json").json
    assert (shown["command"]["id"], shown["command"]["status"]) == (id_of(bank, seq), "applied")
    assert (shown["tenant"], shown["client"]) == (tenant, client_name)
    assert [entry["amount"] for entry in shown["entries"]] == ["-1000", "1000"]
    assert [each["attempts"][0]["status"] for each in shown["deliveries"]] == [500]
    bank.do("DELETE FROM deliveries; DELETE FROM attempts")


def test_a_pending_one_and_a_failed_one_and_its_retry(bank: Bank, bursar: Bursar) -> None:
    bank.order("top_up", "alice", 5, key="k-1")
    bank.do("UPDATE pending SET attempts = 2")
    said = bursar("commands", "show", "k-1").out
    assert f"in partition {bank.partition('alice')}" in said
    assert "2 drains; after 3 it fails" in said
    fail(bank)
    assert "`bursar commands requeue`" in bursar("commands", "show", "k-1").out
    old, new = bursar("commands", "requeue", "k-1", *WHY).out.split()
    assert old == "k-1"
    assert f"asked again  {new}" in bursar("commands", "show", "k-1").out
    retry = bursar("commands", "show", new).out
    assert "repeats" in retry
    assert "by command line: ada: mended in 1.2.3" in retry


def test_a_group_a_tombstone_and_what_is_nowhere(bank: Bank, bursar: Bursar, tenant: str, client_name: str) -> None:
    bank.group([bank.new("top_up", "alice", 1, key="g-1"), bank.new("top_up", "alice", 2, key="g-2")])
    assert "2 of 2, all or nothing" in bursar("commands", "show", "g-2").out
    bursar("commands", "cancel", "never", "--tenant", tenant, "--client", client_name)
    assert "a key that was cancelled before it came" in bursar("commands", "show", "never").out
    assert "no command has the id or the idempotency key 'nowhere'" in bursar("commands", "show", "nowhere", code=1).err
    nobody = command_id(2**40, bank.in_seconds(0))
    assert f"no command has the id {nobody}" in bursar("commands", "show", nobody, code=1).err


def test_a_key_of_several_clients_wants_to_know_whose(bank: Bank, bursar: Bursar, tenant: str) -> None:
    other = bank.new_client()
    mine = bank.top_up("alice", 1, key="same").seq
    theirs = bank.top_up("alice", 2, key="same", client_id=other).seq
    said = bursar("commands", "show", "same", "--tenant", tenant, code=1)
    assert id_of(bank, mine) in said.err
    assert id_of(bank, theirs) in said.err
    name = bank.one("SELECT name FROM clients WHERE id = %s", other)
    assert id_of(bank, theirs) in bursar("commands", "show", "same", "--client", name).out


def test_another_tenants_command_is_not_this_tenants(bank: Bank, bursar: Bursar, tenant: str) -> None:
    other = Bank(bank.url)
    try:
        seq = other.top_up("alice", 1, key="theirs").seq
    finally:
        other.close()
    for name in ("theirs", id_of(bank, seq)):
        bursar("commands", "show", name, "--tenant", tenant, code=1)
        bursar("commands", "show", name)


# --- list ------------------------------------------------------------------------------------------------------------


def test_lists_of_what_failed_and_what_waits(bank: Bank, bursar: Bursar, tenant: str) -> None:
    of_it = ("--tenant", tenant)
    assert "Nothing has failed." in bursar("commands", "list", "--failed", *of_it).out
    assert "Nothing is pending." in bursar("commands", "list", "--pending", *of_it).out
    seqs = [failed(bank, "top_up", "alice", n) for n in (1, 2, 3)]
    waits = bank.order("spend", "bob", 1_234)
    lines = bursar("commands", "list", "--failed", "--json", *of_it).lines
    assert [line["id"] for line in lines] == [id_of(bank, seq) for seq in seqs[::-1]]
    assert [line["requeued_as"] for line in lines] == [None] * 3
    assert len(bursar("commands", "list", "--failed", "--limit", 2, *of_it).out.splitlines()) == 3
    bursar("commands", "requeue", id_of(bank, seqs[1]), *WHY)
    opened = bursar("commands", "list", "--failed", "--open", "--json", "--limit", 0, *of_it).lines
    assert [line["id"] for line in opened] == [id_of(bank, seqs[2]), id_of(bank, seqs[0])]
    pending = bursar("commands", "list", "--pending", *of_it).out
    assert id_of(bank, waits) in pending
    assert "spend 1,234 gold bob" in pending
    assert bursar("commands", "list", "--pending", "--json", *of_it).lines[0]["id"] == id_of(bank, waits)
    bursar("commands", "list", code=2)


# --- requeue and cancel ----------------------------------------------------------------------------------------------


def test_several_are_requeued_and_again_they_are_the_same(bank: Bank, bursar: Bursar) -> None:
    ids = [id_of(bank, failed(bank, "top_up", "alice", n)) for n in (1, 2)]
    said = bursar("commands", "requeue", *ids, *WHY)
    assert [line.split()[0] for line in said.out.splitlines()] == ids
    again = bursar("commands", "requeue", *ids, *WHY)
    assert again.out == said.out
    assert again.err.count("had been requeued before") == 2
    bank.drain()
    assert bank.available("alice") == 3
    bank.assert_settled()


def test_what_has_not_failed_is_not_requeued(bank: Bank, bursar: Bursar) -> None:
    bank.top_up("alice", 1, key="fine")
    assert "fine is applied; only a failed command" in bursar("commands", "requeue", "fine", *WHY, code=1).err
    assert bursar("commands", "requeue", "fine", code=2).out == "", "a reason is asked for"


def test_cancelling(bank: Bank, bursar: Bursar, tenant: str, client_name: str) -> None:
    bank.top_up("alice", 5, key="done")
    bank.order("spend", "alice", 1, key="waits")
    of_it = ("--tenant", tenant)
    assert "is cancelled." in bursar("commands", "cancel", "waits", *of_it).out
    assert "is cancelled." in bursar("commands", "cancel", "waits", *of_it).out, "as it was"
    assert "was applied before (applied); that is final" in bursar("commands", "cancel", "done", *of_it, code=1).err
    bursar("commands", "cancel", "never", *of_it, code=1)
    bursar("commands", "cancel", "never", *of_it, "--client", client_name)
    assert bank.spend("alice", 1, key="other").code == "applied"
    assert bank.accept([bank.new("spend", "alice", 1, key="never")])[0].replayed
    bank.assert_settled()


@pytest.mark.parametrize("key", ["two words", "ä"])
def test_a_key_that_nobody_can_send_is_not_taken(
    bank: Bank, bursar: Bursar, tenant: str, client_name: str, key: str
) -> None:
    said = bursar("commands", "cancel", key, "--tenant", tenant, "--client", client_name, code=1)
    assert "visible ASCII" in said.err
    assert bank.one("SELECT count(*) FROM commands WHERE tenant_id = %s", bank.tenant) == 0
