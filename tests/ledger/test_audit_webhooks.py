"""The audit of deliveries: each is bent by hand once, and the audit says so."""

import pytest
from sqlalchemy import Engine

from tests.books import Bank
from tests.ledger.listening import listen
from tests.ledger.tampering import broken, by_hand
from tests.ledger.tampering import engine as engine


@pytest.fixture
def bank(own_bank: Bank) -> Bank:
    """Something from before the endpoint, and an outcome of each kind since."""
    bank = own_bank
    bank.top_up("alice", 100)
    listen(bank)
    bank.spend("alice", 30)
    bank.spend("alice", 300)
    bank.spend("bob", 1)
    return bank


def test_deliveries_that_nobody_bent_pass(bank: Bank, engine: Engine) -> None:
    assert bank.one("SELECT count(*) FROM deliveries") == 3
    assert broken(engine) == {}


def test_7_an_outcome_that_owes_and_has_no_delivery(bank: Bank, engine: Engine) -> None:
    bank.do("DELETE FROM deliveries WHERE seq = (SELECT max(seq) FROM deliveries)")
    assert broken(engine) == {7: ["it is owed, and has no delivery"]}
    bank.do("UPDATE webhook_endpoints SET wallets = '{alice}'")
    assert broken(engine) == {}, "it was bob's"
    bank.do("UPDATE webhook_endpoints SET wallets = '{bob}', event_types = '{command.applied}'")
    assert broken(engine) == {}, "it was rejected"
    bank.do("UPDATE webhook_endpoints SET event_types = '{command.rejected}'")
    assert broken(engine) == {7: ["it is owed, and has no delivery"]}
    bank.do("UPDATE webhook_endpoints SET status = 'disabled'")
    assert broken(engine) == {}


def test_7_a_delivery_of_nothing(bank: Bank, engine: Engine) -> None:
    bank.do("UPDATE deliveries SET seq = 9000 + seq WHERE seq = (SELECT max(seq) FROM deliveries)")
    assert broken(engine) == {7: ["it is owed, and has no delivery", "there is nothing that it tells of"]}


def test_7_what_is_delivered_was_sent(bank: Bank, engine: Engine) -> None:
    by_hand(bank)
    bank.do("UPDATE deliveries SET status = 'delivered', due_at = NULL WHERE seq = (SELECT max(seq) FROM deliveries)")
    assert broken(engine) == {7: ["delivered after 0 attempts, of which 0 are noted and 0 succeeded"]}
    bank.do("UPDATE deliveries SET attempts = 1 WHERE status = 'delivered'")
    assert broken(engine) == {7: ["delivered after 1 attempts, of which 0 are noted and 0 succeeded"]}
    bank.do(
        "INSERT INTO attempts SELECT endpoint_id, seq, 1, now(), 204, NULL, NULL, 5, '' FROM deliveries"
        " WHERE status = 'delivered'"
    )
    assert broken(engine) == {}
