"""Amounts: integers of minor units, in Python and in PostgreSQL (`bigint`); decimal strings in JSON.

An asset's `scale` says where the point stands when a person reads it (scale 2: `"150"` is 1.50). It never takes part
in arithmetic (docs/decisions/0005-ids-and-amounts.md).
"""

# The largest amount of one command: room for nine of them in a balance before BALANCE_MAX, and 18 digits fit any
# client's decimal type.
AMOUNT_MAX = 10**18
# No balance, ours or a player's, goes beyond this on either side. Below 2**63, so that no sum overflows `bigint`.
BALANCE_MAX = 9 * 10**18
