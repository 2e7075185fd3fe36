"""What the database saw of a load. Reads only; a connection of its own, in autocommit."""

import psycopg

from bursar.bench.figures import Flow

# Grouped by the two transactions that made them: a few thousand rows for a hundred thousand commands.
# A record's xmin is the transaction that wrote it, and records are never updated. Its commit time is when the
# outcome became true for others; accepted_at and at are earlier, for they are set while the transaction runs.
FLOWS = """
SELECT intake, {accepted}, drain, {outcome}, status, commands FROM (
    SELECT c.xmin AS intake, o.xmin AS drain, o.status, count(*) AS commands,
           min(c.accepted_at) AS accepted_at, max(o.at) AS at
    FROM commands c LEFT JOIN outcomes o USING (seq)
    WHERE c.seq > %s GROUP BY c.xmin, o.xmin, o.status
) AS grouped
"""
COMMIT_TIMES = {
    "accepted": "extract(epoch FROM pg_xact_commit_timestamp(intake))::float8",
    "outcome": "extract(epoch FROM pg_xact_commit_timestamp(drain))::float8",
}
COLUMN_TIMES = {
    "accepted": "extract(epoch FROM accepted_at)::float8",
    "outcome": "extract(epoch FROM at)::float8",
}


class NotDurable(Exception):
    """The server would answer before its data is safe: figures from it mean nothing."""


class Observer:
    """Reads the books of the service under test."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True, application_name="bursar-bench")
        self.commit_times = self._show("track_commit_timestamp") == "on"

    def close(self) -> None:
        self._connection.close()

    def _show(self, setting: str) -> str:
        row = self._connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
        return "" if row is None else str(row[0])

    def settings(self) -> dict[str, str]:
        """What a reader must know of the server. Raises NotDurable without fsync or synchronous_commit."""
        shown = {name: self._show(name) for name in ("server_version", "fsync", "synchronous_commit")}
        shown |= {
            name: self._show(name)
            for name in ("full_page_writes", "shared_buffers", "max_wal_size", "wal_compression", "jit")
        }
        unsafe = [name for name in ("fsync", "synchronous_commit") if shown[name] != "on"]
        if unsafe:
            raise NotDurable(f"{' and '.join(unsafe)} must be on, or no figure counts")
        return shown

    def clock_s(self) -> float:
        """The database's clock, which also stamps commits."""
        return float(self._one("SELECT extract(epoch FROM clock_timestamp())::float8"))

    def last_seq(self) -> int:
        """How far acceptance has come. Near enough to a count of commands, and free."""
        return int(self._one("SELECT coalesce(max(seq), 0) FROM commands"))

    def applied_since(self, seq: int) -> int:
        return int(self._one("SELECT count(*) FROM outcomes WHERE seq > %s", seq))

    def drained(self) -> bool:
        return bool(self._one("SELECT NOT EXISTS (SELECT FROM pending)"))

    def flows(self, after_seq: int) -> list[Flow]:
        """All commands accepted after `after_seq`, grouped by their fate."""
        query = FLOWS.format(**(COMMIT_TIMES if self.commit_times else COLUMN_TIMES))
        rows = self._connection.execute(query.encode(), (after_seq,)).fetchall()
        return [
            Flow(int(intake), accepted_s, None if drain is None else int(drain), outcome_s, status, commands)
            for intake, accepted_s, drain, outcome_s, status, commands in rows
        ]

    def level(self) -> None:
        """An even start for the next work: fresh statistics, no checkpoint due. For servers of our own."""
        self._connection.execute("VACUUM (ANALYZE)")
        self._connection.execute("CHECKPOINT")

    def _one(self, query: str, *parameters: object) -> float:
        row = self._connection.execute(query.encode(), parameters).fetchone()
        assert row is not None
        return row[0]
