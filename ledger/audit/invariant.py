"""What a check of the audit consists of."""

from dataclasses import dataclass
from typing import Literal

# What a check can be cut along: the commands' numbers, the accounts', the positions in the hash chains.
Along = Literal["seq", "account", "position"]
WHOLE = (-(2**62), 2**62)


@dataclass(slots=True, frozen=True)
class Invariant:
    """`checked`: SQL for the number of things looked at. `breaches`: SQL for those that break it, a row each.

    `before`: settings for the two. `note`: SQL for a sentence that belongs to the answer, or NULL.

    `along`: `checked` and `breaches` look at what lies between :low and :high alone, and of several parts that leave
    nothing out each breach is seen in one (ledger.audit.parts); None: they look at everything. `in_parts`: the breaches
    of a part, where the statement for the whole would read it all.
    """

    number: int
    name: str
    checked: str
    breaches: str
    before: str = ""
    note: str = ""
    along: Along | None = None
    in_parts: str = ""
