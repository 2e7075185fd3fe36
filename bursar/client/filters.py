"""Which outcomes of the feed are wanted."""

from typing import Literal, TypedDict


class Filters(TypedDict, total=False):
    """An outcome passes them all. `wallet`: either side's."""

    type: str | None
    status: Literal["applied", "rejected", "cancelled", "failed"] | None
    wallet: str | None
    asset: str | None


def filters(wanted: Filters) -> dict[str, str]:
    return {name: str(value) for name, value in wanted.items() if value is not None}
