"""Events: what an outcome is called, and who is owed it."""

from dataclasses import replace
from typing import Any

import pytest

from ledger.errors import Code
from ledger.events import OUTCOME_TYPES, Listener, Outcome, Owed, lane_of, outcome_type, owed

REFUSED = Outcome(7, 1, "command.rejected", "alice", "bob")


ANY = Listener(endpoint_id=5, tenant_id=1, event_types=None, wallets=None, ordered=False)


def listener(**chosen: Any) -> Listener:
    return replace(ANY, **chosen)


@pytest.mark.parametrize(
    ("status", "code", "type_"),
    [
        ("applied", Code.APPLIED, "command.applied"),
        ("rejected", Code.INSUFFICIENT_FUNDS, "command.rejected"),
        ("rejected", Code.EXPIRED, "command.expired"),
        ("cancelled", Code.CANCELLED, "command.cancelled"),
        ("failed", Code.INTERNAL_ERROR, "command.failed"),
    ],
)
def test_an_outcome_has_one_type(status: str, code: Code, type_: str) -> None:
    assert outcome_type(status, code) == type_
    assert type_ in OUTCOME_TYPES


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"event_types": ["command.applied", "command.rejected"]},
        {"wallets": ["alice"]},
        {"wallets": ["carol", "bob"]},
        {"event_types": ["command.rejected"], "wallets": ["bob"]},
    ],
    ids=str,
)
def test_who_wants_it_is_owed_it(chosen: dict[str, Any]) -> None:
    assert owed([listener(**chosen)], [REFUSED]) == [Owed(5, 7, None)]


@pytest.mark.parametrize(
    "chosen",
    [
        {"tenant_id": 2},
        {"event_types": ["command.applied"]},
        {"wallets": ["carol"]},
        {"event_types": ["command.applied"], "wallets": ["alice"]},
        {"event_types": ["command.rejected"], "wallets": ["carol"]},
    ],
    ids=str,
)
def test_who_does_not_is_not(chosen: dict[str, Any]) -> None:
    assert owed([listener(**chosen)], [REFUSED]) == []


def test_an_outcome_of_no_wallet_is_for_those_who_chose_none() -> None:
    tombstone = Outcome(8, 1, "command.cancelled", None, None)
    assert owed([ANY, listener(endpoint_id=6, wallets=["alice"])], [tombstone]) == [Owed(5, 8, None)]


def test_the_lane_is_the_paying_wallets() -> None:
    other_way = REFUSED._replace(seq=9, wallet="bob", to_wallet="alice")
    assert owed([listener(ordered=True)], [REFUSED, other_way]) == [
        Owed(5, 7, lane_of("alice")),
        Owed(5, 9, lane_of("bob")),
    ]
    assert lane_of("alice") != lane_of("bob")
    assert 0 <= lane_of(None) < 2**32
