"""What a check of the audit consists of."""

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Invariant:
    """`checked`: SQL for the number of things looked at. `breaches`: SQL for those that break it, a row each.

    `before`: settings for the two. `note`: SQL for a sentence that belongs to the answer, or NULL.
    """

    number: int
    name: str
    checked: str
    breaches: str
    before: str = ""
    note: str = ""
