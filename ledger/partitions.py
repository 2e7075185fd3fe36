"""Which partition a wallet's commands are drained in."""

from zlib import crc32


def partition_of(tenant_id: int, wallet: str, partitions: int) -> int:
    """Stable across processes and versions, as `hash()` is not. `partitions`: their number, from the database."""
    return crc32(f"{tenant_id}:{wallet}".encode()) % partitions
