"""Commands as the drain reads them: which rows become which class, and which wallets each one touches."""

from datetime import UTC, datetime
from typing import get_args

import pytest

from ledger.commands import DEBIT_TYPES, TYPES, Bonus, Command, Order, Spend, TopUp, Transfer, Unknown, touched_wallets
from ledger.inbox import _command

AT = datetime(2026, 11, 21, tzinfo=UTC)
ORDER = (7, 1, 3, "alice", "gold", 30, AT)


def row(kind: str, to_wallet: str | None = None) -> tuple[object, ...]:
    """As the claim selects it: the clock, the type, the order's fields, the target."""
    return (AT, kind, *ORDER, to_wallet)


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("top_up", TopUp(*ORDER)),
        ("bonus", Bonus(*ORDER)),
        ("spend", Spend(*ORDER)),
        ("transfer", Transfer(*ORDER, to_wallet="bob")),
    ],
)
def test_a_row_becomes_the_command_of_its_type(kind: str, command: Command) -> None:
    assert _command(row(kind, "bob" if kind == "transfer" else None)) == command


@pytest.mark.parametrize("kind", ["conjure", "", "Spend", "spend ", "top-up", "capture"])
def test_a_type_that_nobody_knows_becomes_unknown(kind: str) -> None:
    assert _command(row(kind)) == Unknown(*ORDER)


def test_each_type_that_clients_may_send_is_known_here_and_no_class_is_without_one() -> None:
    classes = {type(_command(row(kind, "bob"))) for kind in TYPES}
    assert classes == set(get_args(Command)) - {Unknown}
    assert len(classes) == len(TYPES)


def test_the_fields_of_a_command_stand_where_they_belong() -> None:
    command = _command(row("spend"))
    assert (command.seq, command.tenant_id, command.partition) == (7, 1, 3)
    assert (command.wallet, command.asset, command.amount, command.expires_at) == ("alice", "gold", 30, AT)


@pytest.mark.parametrize(
    ("command", "wallets"),
    [
        (TopUp(*ORDER), ("alice", "@treasury")),
        (Bonus(*ORDER), ("alice", "@bonus")),
        (Spend(*ORDER), ("alice", "@revenue")),
        (Transfer(*ORDER, to_wallet="bob"), ("alice", "bob")),
        (Unknown(*ORDER), ()),
    ],
)
def test_a_drain_locks_the_wallets_that_a_command_moves(command: Command, wallets: tuple[str, ...]) -> None:
    assert touched_wallets(command) == wallets


def test_the_debits_are_those_that_take_from_their_own_wallet() -> None:
    takes = [kind for kind in TYPES if touched_wallets(_command(row(kind, "bob")))[1] in ("@revenue", "bob")]
    assert sorted(takes) == sorted(DEBIT_TYPES)


def test_commands_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Order(*ORDER).amount = 31  # type: ignore[misc]
