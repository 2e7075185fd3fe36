"""What the books can say no with, and what must never happen.

A *refusal* is an outcome: expected, final, stored, told to the client by its code. A *broken invariant* is a defect:
an exception, a rollback, an alert. Neither is ever used for the other.
"""

from enum import StrEnum


class Code(StrEnum):
    """Every code an outcome can carry. Clients match on these: renaming one breaks them."""

    APPLIED = "applied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    ASSET_NOT_FOUND = "asset_not_found"
    ASSET_FROZEN = "asset_frozen"
    WALLET_NOT_FOUND = "wallet_not_found"
    WALLET_FROZEN = "wallet_frozen"
    WALLET_CLOSED = "wallet_closed"
    WALLET_NOT_EMPTY = "wallet_not_empty"
    COMMAND_NOT_APPLIED = "command_not_applied"
    HOLD_NOT_OPEN = "hold_not_open"
    HOLD_EXCEEDED = "hold_exceeded"
    ALREADY_REVERSED = "already_reversed"
    REVERSAL_EXCEEDED = "reversal_exceeded"
    PRECONDITION_FAILED = "precondition_failed"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    AMOUNT_LIMIT_EXCEEDED = "amount_limit_exceeded"
    VELOCITY_LIMIT_EXCEEDED = "velocity_limit_exceeded"
    BALANCE_LIMIT_EXCEEDED = "balance_limit_exceeded"
    SUPPLY_LIMIT_EXCEEDED = "supply_limit_exceeded"
    TOO_MANY_LOTS = "too_many_lots"
    LIMIT_EXCEEDED = "limit_exceeded"
    GROUP_REFUSED = "group_refused"
    INTERNAL_ERROR = "internal_error"


class BrokenInvariant(Exception):
    """The books contradict themselves, or a statement did not do what it must have done. Never a refusal."""


class BooksMoved(Exception):
    """Another drain opened an account that this one was about to open. Roll back and drain again: it is there now."""
