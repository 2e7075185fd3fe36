"""Commands as the drain reads them: which rows become which class, and which wallets each one touches."""

from datetime import UTC, datetime
from typing import get_args

import pytest

from ledger.commands import (
    OWN_TYPES,
    TYPES,
    Adjust,
    Bonus,
    Capture,
    Close,
    Command,
    Exchange,
    ExpireCredits,
    ExpireHold,
    Hold,
    Options,
    Order,
    Precondition,
    Release,
    Reverse,
    Spend,
    TopUp,
    Transfer,
    Unknown,
    read_options,
    touched_wallets,
    write_options,
)
from ledger.inbox import _command

AT = datetime(2026, 11, 21, tzinfo=UTC)
ORDER = (7, 1, 3, "alice", "gold", 30, AT)


def row(kind: str, to_wallet: str | None = None) -> tuple[object, ...]:
    """As the claim selects it: the type, the options, the fields of the order."""
    return (kind, None, *ORDER, to_wallet)


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("top_up", TopUp(*ORDER)),
        ("bonus", Bonus(*ORDER)),
        ("spend", Spend(*ORDER)),
        ("transfer", Transfer(*ORDER, to_wallet="bob")),
        ("hold", Hold(*ORDER)),
        ("capture", Capture(*ORDER)),
        ("release", Release(*ORDER)),
        ("exchange", Exchange(*ORDER)),
        ("reverse", Reverse(*ORDER)),
        ("adjust", Adjust(*ORDER)),
        ("expire_hold", ExpireHold(*ORDER)),
        ("expire_credits", ExpireCredits(*ORDER)),
        ("close", Close(*ORDER)),
    ],
)
def test_a_row_becomes_the_command_of_its_type(kind: str, command: Command) -> None:
    assert _command(row(kind, "bob" if kind == "transfer" else None)) == command


@pytest.mark.parametrize("kind", ["conjure", "", "Spend", "spend ", "top-up"])
def test_a_type_that_nobody_knows_becomes_unknown(kind: str) -> None:
    assert _command(row(kind)) == Unknown(*ORDER)


def test_each_type_is_known_here_and_no_class_is_without_one() -> None:
    classes = {type(_command(row(kind, "bob"))) for kind in (*TYPES, *OWN_TYPES)}
    assert classes == set(get_args(Command)) - {Unknown}
    assert len(classes) == len(TYPES) + len(OWN_TYPES)


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
        (Hold(*ORDER), ("alice",)),
        (Capture(*ORDER), ("alice", "@revenue")),
        (Capture(*ORDER, to_wallet="bob"), ("alice", "bob")),
        (Release(*ORDER), ("alice",)),
        (Exchange(*ORDER), ("alice", "@exchange")),
        (Reverse(*ORDER), ("alice",)),
        (Adjust(*ORDER), ("alice", "@adjustment")),
        (ExpireHold(*ORDER), ("alice",)),
        (ExpireCredits(*ORDER), ("alice", "@expired")),
        (Close(*ORDER, to_wallet="bob"), ("alice", "bob")),
        (Unknown(*ORDER), ()),
    ],
)
def test_a_drain_locks_the_wallets_that_a_command_moves(command: Command, wallets: tuple[str, ...]) -> None:
    assert touched_wallets(command) == wallets


def test_options_are_stored_and_read_again_and_none_are_stored_as_nothing() -> None:
    options = Options(precondition=Precondition(version=3), hold_expires_at=AT, final=False, assets=("gold",))
    assert read_options(write_options(options)) == options
    assert write_options(Options()) is None
    assert read_options(None) == Options()


def test_what_is_not_stored_means_what_it_always_meant() -> None:
    """A row keeps only what is not as usual: another usual would change what was accepted long ago."""
    options = read_options("{}")
    assert (options.credits_order, options.final, options.rounding) == ("soonest_to_expire", True, "down")
    assert not options.allow_negative
    assert options.assets == ()
    absent = ("precondition", "credits_expire_at", "priority", "source", "hold_expires_at", "to_asset", "to_amount")
    assert {getattr(options, name) for name in (*absent, "rate", "reason", "lot_n")} == {None}


def test_commands_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Order(*ORDER).amount = 31  # type: ignore[misc]
