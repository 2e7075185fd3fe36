"""What the books can say no with, and what must never happen.

A *refusal* is an outcome: expected, final, stored, told to the client by its code. A *broken invariant* is a defect:
an exception, a rollback, an alert. Neither is ever used for the other.
"""

from enum import StrEnum


class Code(StrEnum):
    """Every code an outcome can carry. Clients match on these: renaming one breaks them."""

    APPLIED = "applied"
    EXPIRED = "expired"
    ASSET_NOT_FOUND = "asset_not_found"
    ASSET_FROZEN = "asset_frozen"
    WALLET_NOT_FOUND = "wallet_not_found"
    WALLET_FROZEN = "wallet_frozen"
    WALLET_CLOSED = "wallet_closed"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    LIMIT_EXCEEDED = "limit_exceeded"
    INTERNAL_ERROR = "internal_error"


class BrokenInvariant(Exception):
    """The books contradict themselves, or a statement did not do what it must have done. Never a refusal."""


class BooksMoved(Exception):
    """Another drain opened an account that this one was about to open. Roll back and drain again: it is there now."""
