"""Limits: what an asset, or one wallet in an asset, may come to (docs/commands.md, "Limits"). Pure data.

`balance_low_below` bounds nothing: it is where `wallet.balance_low` is told (docs/webhooks.md).
"""

import msgspec

WINDOW_MAX_S = 31 * 86_400  # a velocity window is read entry by entry: a month of a player's debits is a few hundred


class Velocity(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Debits of the last `window_s` seconds: how many at the most, and how much together."""

    window_s: int
    max_amount: int | None = None
    max_count: int | None = None


class Limits(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """Amounts are minor units; None: no limit. `max_supply` is an asset's only."""

    max_amount: int | None = None
    max_balance: int | None = None
    velocity: Velocity | None = None
    max_supply: int | None = None
    balance_low_below: int | None = None


NO_LIMITS = Limits()
_decoder = msgspec.json.Decoder(Limits)
_encode = msgspec.json.Encoder().encode


def read_limits(text: bytes | str) -> Limits:
    """As stored."""
    return _decoder.decode(text)


def write_limits(limits: Limits) -> str | None:
    """As they are stored: JSON without the members that are None; None where all are."""
    return None if limits == NO_LIMITS else _encode(limits).decode()


def combine(of_asset: Limits | None, of_wallet: Limits | None) -> Limits:
    """What holds for a wallet: its own limits, member by member, before the asset's."""
    if of_asset is None or of_wallet is None:
        return of_wallet or of_asset or NO_LIMITS
    return Limits(
        of_asset.max_amount if of_wallet.max_amount is None else of_wallet.max_amount,
        of_asset.max_balance if of_wallet.max_balance is None else of_wallet.max_balance,
        of_wallet.velocity or of_asset.velocity,
        of_asset.max_supply,
        of_asset.balance_low_below if of_wallet.balance_low_below is None else of_wallet.balance_low_below,
    )
