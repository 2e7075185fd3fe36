"""Times in requests: RFC 3339 with an offset."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

_decode = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)]).decode
_INSTANT = "must be an RFC 3339 time with offset, like 2026-11-21T12:00:05Z"


def instant(text: str) -> datetime:
    """The time that this names, in UTC. Raises ValueError, with a detail for the caller."""
    try:
        return _decode(msgspec.json.encode(text)).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise ValueError(_INSTANT) from None


def _instant_parameter(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return instant(value)
    except ValueError as error:
        # In a query a bare + is a space.
        raise PydanticCustomError("invalid", "{detail}; write + as %2B", {"detail": str(error)}) from None


# A query parameter.
InstantParameter = Annotated[datetime, BeforeValidator(_instant_parameter), Field(examples=["2026-11-21T12:00:05Z"])]
