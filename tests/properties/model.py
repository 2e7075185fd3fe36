"""What a bank must do, written a second time and differently: plain dictionaries, no SQL, no `decide`.

The rules are those of the specification. Whoever changes one changes it here, too, and on purpose.
"""

from dataclasses import dataclass, field

LARGEST_BALANCE = 9_000_000_000_000_000_000


@dataclass
class Model:
    balances: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])  # (wallet, asset)
    ours: dict[tuple[str, str, int], int] = field(default_factory=dict[tuple[str, str, int], int])  # …, partition
    known: set[str] = field(default_factory=set[str])
    frozen: set[str] = field(default_factory=set[str])  # wallets and assets
    assets: set[str] = field(default_factory=set[str])

    def settle(self, kind: str, wallet: str, to_wallet: str | None, asset: str, amount: int, partition: int) -> str:
        """What becomes of a command, now; its code."""
        if asset not in self.assets:
            return "asset_not_found"
        if asset in self.frozen:
            return "asset_frozen"
        pays = kind in ("spend", "transfer")
        if pays and wallet not in self.known:
            return "wallet_not_found"
        if wallet in self.frozen or to_wallet in self.frozen:
            return "wallet_frozen"
        if pays and self.balances.get((wallet, asset), 0) < amount:
            return "insufficient_funds"
        return self._settle_moving(kind, wallet, to_wallet, asset, amount, partition)

    def _settle_moving(
        self, kind: str, wallet: str, to_wallet: str | None, asset: str, amount: int, partition: int
    ) -> str:
        house = {"top_up": "@treasury", "bonus": "@bonus", "spend": "@revenue"}.get(kind)
        gains = {"top_up": wallet, "bonus": wallet, "spend": None, "transfer": to_wallet}[kind]
        gained = self.balances.get((gains, asset), 0) + amount if gains else 0
        our_share = self.ours.get((house, asset, partition), 0) if house else 0
        our_share += amount if kind == "spend" else -amount
        if gained > LARGEST_BALANCE or (house and abs(our_share) > LARGEST_BALANCE):
            return "limit_exceeded"
        if kind in ("spend", "transfer"):
            self.balances[wallet, asset] -= amount
        if gains:
            self.balances[gains, asset] = gained
            self.known.add(gains)
        if house:
            self.ours[house, asset, partition] = our_share
        return "applied"
