"""Which partition a wallet belongs to: for ever the same, and spread evenly."""

import subprocess
import sys
from collections import Counter

import pytest

from ledger.partitions import partition_of


@pytest.mark.parametrize(
    ("tenant", "wallet", "partitions", "expected"),
    [
        (1, "alice", 8, 1),
        (1, "bob", 8, 4),
        (2, "alice", 8, 4),
        (1, "player-42", 8, 6),
        (1, "player-42", 256, 86),
        (1, "a", 1, 0),
        (77, "game:7/é", 8, 5),
    ],
)
def test_a_wallet_stays_where_it_is(tenant: int, wallet: str, partitions: int, expected: int) -> None:
    """Pinned: a pending command's partition was computed by another process, perhaps of another version."""
    assert partition_of(tenant, wallet, partitions) == expected


def test_another_process_finds_the_same_partition() -> None:
    """Python's own hash() differs from process to process."""
    code = "from ledger.partitions import partition_of; print([partition_of(1, f'w{n}', 8) for n in range(50)])"
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        env={"PYTHONHASHSEED": "7"},
    ).stdout
    assert told.strip() == str([partition_of(1, f"w{n}", 8) for n in range(50)])


@pytest.mark.parametrize("partitions", [2, 7, 8, 64])
@pytest.mark.parametrize("name", ["player-{}", "{}", "{:08d}", "user:{}@game"])
def test_wallets_are_spread_evenly(name: str, partitions: int) -> None:
    counts = Counter(partition_of(1, name.format(n), partitions) for n in range(1_000 * partitions))
    assert set(counts) == set(range(partitions))
    assert max(counts.values()) < 1.25 * 1_000
    assert min(counts.values()) > 0.75 * 1_000


def test_tenants_wallets_of_one_name_are_spread_too() -> None:
    assert len({partition_of(tenant, "alice", 8) for tenant in range(1, 50)}) == 8
