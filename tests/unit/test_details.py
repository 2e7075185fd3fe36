"""What a refusal says to a person: which of their numbers and names stood in the way."""

from typing import Any

import pytest

from ledger.commands import Precondition
from ledger.decisions import Refused
from ledger.errors import Code
from ledger.limits import Velocity
from ledger.lots import LOTS_MAX, Lot
from ledger.money import BALANCE_MAX
from tests.unit.staging import LATE, NOW, Scene

ALICE = ("alice", "gold")
PAST = Lot(50, 1, NOW, "purchased", 50, NOW, 1)
CROWD = [Lot(seq, 1, NOW, "purchased", 50, None, 1) for seq in range(LOTS_MAX)]


def limited(**limits: Any) -> Scene:
    return Scene(limits={ALICE: limits}, debits=1 if "velocity" in limits else 0)


DETAILS: list[tuple[Scene, str, Code, str]] = [
    (Scene(expires_at=LATE), "spend", Code.EXPIRED,
     "expired at 2026-11-21T11:59:59.999999+00:00, before it could be applied"),
    (Scene(options={"hold_expires_at": NOW}), "hold", Code.EXPIRED,
     "what it makes would have ended at 2026-11-21T12:00:00+00:00"),
    (Scene(options={"credits_expire_at": NOW}), "bonus", Code.EXPIRED,
     "what it makes would have ended at 2026-11-21T12:00:00+00:00"),
    (Scene(), "expire_credits", Code.EXPIRED, "nothing is left of these credits"),
    (Scene(asset=None), "top_up", Code.ASSET_NOT_FOUND, "no asset gold; create it with POST /v1/assets"),
    (Scene(to_asset=None), "exchange", Code.ASSET_NOT_FOUND, "no asset diamonds; create it with POST /v1/assets"),
    (Scene(asset="frozen"), "top_up", Code.ASSET_FROZEN, "asset gold is frozen"),
    (Scene(named=False), "capture", Code.COMMAND_NOT_APPLIED, "the hold was not placed"),
    (Scene(named=False), "reverse spend", Code.COMMAND_NOT_APPLIED,
     "the command was not applied, so there is nothing to reverse"),
    (Scene(hold_status="captured"), "release", Code.HOLD_NOT_OPEN, "the hold is captured"),
    (Scene(hold_expires_at=NOW), "capture", Code.HOLD_NOT_OPEN, "the hold expired at 2026-11-21T12:00:00+00:00"),
    (Scene(hold_status="released"), "expire_hold", Code.HOLD_NOT_OPEN, "the hold has ended"),
    (Scene(left=0), "reverse spend", Code.ALREADY_REVERSED, "all of the command is reversed"),
    (Scene(alice=None), "spend", Code.WALLET_NOT_FOUND, "no wallet alice; its first credit opens it"),
    (Scene(bob=None), "close to bob", Code.WALLET_NOT_FOUND, "no wallet bob to sweep to"),
    (Scene(alice="frozen"), "spend", Code.WALLET_FROZEN, "wallet alice is frozen"),
    (Scene(bob="frozen"), "transfer", Code.WALLET_FROZEN, "wallet bob is frozen"),
    (Scene(alice="debits_frozen"), "spend", Code.WALLET_FROZEN, "the debits of wallet alice are frozen"),
    (Scene(bob="closed"), "transfer", Code.WALLET_CLOSED, "wallet bob is closed"),
    (Scene(options={"precondition": Precondition(version=6)}), "spend", Code.PRECONDITION_FAILED,
     "version is 5, not 6"),
    (Scene(options={"precondition": Precondition(available_gte=101)}), "spend", Code.PRECONDITION_FAILED,
     "available is 100, below 101"),
    (Scene(options={"precondition": Precondition(available_gte=100)}, lots={ALICE: [PAST]}), "spend",
     Code.PRECONDITION_FAILED, "available is 99, below 100"),
    (Scene(left=29), "capture", Code.HOLD_EXCEEDED, "29 are left of the hold, asked for 30"),
    (Scene(left=29), "reverse spend", Code.REVERSAL_EXCEEDED, "29 are left to reverse, asked for 30"),
    (limited(max_amount=29), "spend", Code.AMOUNT_LIMIT_EXCEEDED, "asked for 30, one command may have 29"),
    (limited(velocity=Velocity(60, max_count=1)), "spend", Code.VELOCITY_LIMIT_EXCEEDED,
     "1 debits in the last 60 s, 1 may be"),
    (limited(velocity=Velocity(60, max_amount=29)), "spend", Code.VELOCITY_LIMIT_EXCEEDED,
     "0 debited in the last 60 s, 30 more pass 29"),
    (Scene(balances={"alice": 29}), "spend", Code.INSUFFICIENT_FUNDS, "available 29, needed 30"),
    (Scene(balances={"alice": 30}, lots={ALICE: [PAST]}), "spend", Code.INSUFFICIENT_FUNDS, "available 29, needed 30"),
    (Scene(held={"alice": 1}), "close to bob", Code.WALLET_NOT_EMPTY,
     "1 gold of alice are held; release or capture them"),
    (Scene(balances={"alice": -1}), "close to bob", Code.WALLET_NOT_EMPTY, "alice owes 1 gold"),
    (Scene(), "close", Code.WALLET_NOT_EMPTY, "alice has 100 diamonds; name a wallet to sweep them to"),
    (Scene(lots={ALICE: [PAST]}), "close to bob", Code.WALLET_NOT_EMPTY,
     "alice has gold past their time, which leave within two seconds"),
    (limited(max_balance=129), "top_up", Code.BALANCE_LIMIT_EXCEEDED, "posted would be 130, the limit is 129"),
    (Scene(headroom=29), "top_up", Code.SUPPLY_LIMIT_EXCEEDED, "29 may still be issued, asked for 30"),
    (Scene(headroom=-1), "top_up", Code.SUPPLY_LIMIT_EXCEEDED, "0 may still be issued, asked for 30"),
    (Scene(balances={"alice": 500}, lots={ALICE: CROWD}, options={"priority": 1}), "top_up", Code.TOO_MANY_LOTS,
     "the account has 500 lots of at most 500"),
    (Scene(balances={"alice": BALANCE_MAX}), "top_up", Code.LIMIT_EXCEEDED,
     "a balance would pass 9000000000000000000 minor units"),
]  # fmt: skip


@pytest.mark.parametrize(("scene", "kind", "code", "detail"), DETAILS, ids=[detail for *_, detail in DETAILS])
def test_a_detail_names_what_stands_in_the_way(scene: Scene, kind: str, code: Code, detail: str) -> None:
    assert scene.decide(kind) == Refused(code, detail)


def test_every_refusal_of_a_decision_is_here() -> None:
    others = {Code.APPLIED, Code.CANCELLED, Code.GROUP_REFUSED, Code.INTERNAL_ERROR}
    assert {code for _, _, code, _ in DETAILS} == set(Code) - others
