"""The audit: does what is stored keep the invariants of the books? It reads, reports and never repairs.

Every check sees one snapshot (REPEATABLE READ, read-only), so a live system neither disturbs it nor waits for it. The
snapshot holds back vacuum for as long as it runs: minutes, for a ledger of a hundred million entries.

Invariants 7 (webhook deliveries) and 8 (the hash chain) come with what they speak of.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

BREACHES_MAX = 100  # rows reported per invariant: enough to see the pattern; the rest is counted in, not printed

# Two api processes may commit out of the order in which they took their numbers: by no more than the time that an
# accepting statement may take (ledger.db.STATEMENT_TIMEOUT_MS). Later than that, the order was the drain's to keep.
CONCURRENT_WITHIN = "10 seconds"


@dataclass(slots=True, frozen=True)
class Invariant:
    """`checked`: SQL for the number of things looked at. `breaches`: SQL for those that break it, a row each."""

    number: int
    name: str
    checked: str
    breaches: str
    before: str = ""


INVARIANTS = (
    Invariant(
        1,
        "every transfer sums to zero per asset",
        # The whole ledger is the sum of its transfers, and invariant 2 ties the balances to it.
        "SELECT count(*) FROM transfers",
        """
        SELECT e.seq, s.code AS asset, e.total
        FROM (SELECT seq, asset_id, sum(amount) AS total FROM entries GROUP BY seq, asset_id) e
        LEFT JOIN assets s ON s.id = e.asset_id
        WHERE e.total <> 0
        """,
    ),
    Invariant(
        2,
        "every balance is the sum of its entries, and their versions have no gap",
        "SELECT count(*) FROM accounts",
        """
        WITH chain AS (
            SELECT account_id, version, asset_id, amount, balance_after,
                   lag(version, 1, 0::bigint) OVER in_order AS version_before,
                   lag(balance_after, 1, 0::bigint) OVER in_order AS balance_before
            FROM entries WINDOW in_order AS (PARTITION BY account_id ORDER BY version)
        ), totals AS (
            SELECT account_id, sum(amount) AS total, max(version) AS version, min(asset_id) AS asset_min,
                   max(asset_id) AS asset_max
            FROM entries GROUP BY account_id
        ), broken AS (
            SELECT account_id, format('version %s follows %s', version, version_before) AS what
            FROM chain WHERE version <> version_before + 1
            UNION ALL
            SELECT account_id, format('version %s: %s + %s is not %s', version, balance_before, amount, balance_after)
            FROM chain WHERE balance_before + amount <> balance_after
            UNION ALL
            SELECT COALESCE(a.id, t.account_id), CASE
                WHEN a.id IS NULL THEN 'entries of an account that does not exist'
                WHEN t.asset_min <> a.asset_id OR t.asset_max <> a.asset_id THEN 'entries in another asset'
                WHEN a.posted <> COALESCE(t.total, 0)
                    THEN format('posted is %s, the entries sum to %s', a.posted, COALESCE(t.total, 0))
                WHEN a.version <> COALESCE(t.version, 0)
                    THEN format('version is %s, the last entry has %s', a.version, COALESCE(t.version, 0))
                END
            FROM accounts a FULL JOIN totals t ON t.account_id = a.id
        )
        SELECT b.account_id, w.code AS wallet, s.code AS asset, a.shard, b.what
        FROM broken b LEFT JOIN accounts a ON a.id = b.account_id
        LEFT JOIN wallets w ON w.id = a.wallet_id LEFT JOIN assets s ON s.id = a.asset_id
        WHERE b.what IS NOT NULL
        """,
    ),
    Invariant(
        3,
        "what is held is the sum of open holds, and no player fell below zero but by a reversal that was allowed to",
        "SELECT count(*) FROM accounts",
        """
        WITH holding AS (
            SELECT account_id, sum(remaining) AS held FROM holds GROUP BY account_id
        ), falls AS (
            SELECT account_id, version, seq, balance_after - held_after AS available,
                   lag(balance_after - held_after, 1, 0::bigint) OVER in_order AS before
            FROM entries WINDOW in_order AS (PARTITION BY account_id ORDER BY version)
        )
        SELECT a.id AS account_id, w.code AS wallet, s.code AS asset, a.shard, x.what
        FROM (
            SELECT COALESCE(a.id, h.account_id) AS account_id,
                   format('%s held, the open holds have %s', COALESCE(a.held, 0), COALESCE(h.held, 0)) AS what
            FROM accounts a FULL JOIN holding h ON h.account_id = a.id
            WHERE a.held IS DISTINCT FROM COALESCE(h.held, 0)
            UNION ALL
            SELECT a.id, format('%s held, the last entry says %s', a.held, e.held_after)
            FROM accounts a JOIN entries e ON e.account_id = a.id AND e.version = a.version
            WHERE a.held <> e.held_after
            UNION ALL
            SELECT id, format('posted %s, held %s, never to fall below %s', posted, held, floor)
            FROM accounts WHERE posted - held < floor AND NOT allow_negative
            UNION ALL
            SELECT f.account_id, format('version %s left %s', f.version, f.available)
            FROM falls f JOIN accounts a ON a.id = f.account_id
            LEFT JOIN commands c ON c.seq = f.seq
            WHERE f.available < 0 AND f.available < f.before AND NOT a.allow_negative
              AND NOT COALESCE(c.type = 'reverse' AND c.options ->> 'allow_negative' = 'true', false)
              AND c.type IS DISTINCT FROM 'expire_credits'
        ) x
        JOIN accounts a ON a.id = x.account_id
        LEFT JOIN wallets w ON w.id = a.wallet_id LEFT JOIN assets s ON s.id = a.asset_id
        """,
    ),
    Invariant(
        4,
        "every command is pending or has one outcome, and a transfer exactly if it was applied",
        "SELECT count(*) FROM commands",
        """
        WITH queued AS (  -- a group is queued as one, under its first command
            SELECT seq, partition FROM pending WHERE size = 1
            UNION ALL
            SELECT COALESCE(c.seq, p.seq), p.partition
            FROM pending p LEFT JOIN commands c ON c.group_seq = p.seq WHERE p.size > 1
        )
        SELECT seq, what FROM (
            SELECT seq, CASE
                WHEN c.seq IS NULL THEN 'no such command was accepted'
                WHEN o.seq IS NULL AND p.seq IS NULL THEN 'neither pending nor with an outcome'
                WHEN o.seq IS NOT NULL AND p.seq IS NOT NULL THEN 'pending, with an outcome'
                WHEN p.partition <> c.partition THEN 'pending in another partition than its own'
                WHEN o.status = 'applied' AND t.seq IS NULL THEN 'applied, without its transfer'
                WHEN o.status = 'applied' AND e.seq IS NULL THEN 'applied, its transfer without entries'
                WHEN o.status IS DISTINCT FROM 'applied' AND (t.seq IS NOT NULL OR e.seq IS NOT NULL)
                    THEN 'not applied, with a transfer'
                WHEN t.tenant_id <> c.tenant_id OR t.partition <> c.partition
                    THEN 'its transfer names another tenant or partition'
                END AS what
            FROM commands c FULL JOIN outcomes o USING (seq) FULL JOIN queued p USING (seq)
            FULL JOIN transfers t USING (seq) FULL JOIN (SELECT DISTINCT seq FROM entries) e USING (seq)
            UNION ALL
            SELECT seq, format('%s outcomes', count(*)) FROM outcomes GROUP BY seq HAVING count(*) > 1
        ) x WHERE what IS NOT NULL
        """,
        before="SET LOCAL enable_indexonlyscan = off",  # a primary key would vouch for itself
    ),
    Invariant(
        5,
        "what a wallet was told, it did in acceptance order",
        "SELECT count(*) FROM entries e JOIN commands c USING (seq)",
        f"""
        WITH own AS (
            SELECT e.account_id, e.version, e.seq, c.wallet, c.accepted_at,
                   max(e.seq) OVER (
                       PARTITION BY e.account_id ORDER BY e.version ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                   ) AS overtaken_by
            FROM entries e JOIN commands c USING (seq)
            JOIN accounts a ON a.id = e.account_id
            JOIN wallets w ON w.id = a.wallet_id AND w.tenant_id = c.tenant_id AND w.code = c.wallet
        )
        SELECT own.account_id, own.wallet, own.version, own.seq, own.overtaken_by
        FROM own JOIN commands later ON later.seq = own.overtaken_by
        WHERE own.overtaken_by > own.seq AND later.accepted_at > own.accepted_at + interval '{CONCURRENT_WITHIN}'
        """,
    ),
    Invariant(
        6,
        "a client used each idempotency key for one command",
        "SELECT count(*) FROM commands",
        """
        SELECT client_id, idempotency_key, count(*) AS commands, min(seq) AS first_seq
        FROM commands GROUP BY client_id, idempotency_key HAVING count(*) > 1
        """,
        before="SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off",  # not by the index it doubts
    ),
)


@dataclass(slots=True, frozen=True)
class Finding:
    """What one check saw. `truncated`: there are more breaches than BREACHES_MAX."""

    number: int
    name: str
    checked: int
    breaches: list[dict[str, Any]]
    truncated: bool

    @property
    def holds(self) -> bool:
        return not self.breaches


def audit(engine: Engine) -> list[Finding]:
    """Check every invariant on one snapshot. No statement timeout: a large ledger takes its time."""
    with engine.connect() as connection:
        snapshot = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        findings: list[Finding] = []
        with snapshot.begin():
            snapshot.execute(text("SET LOCAL statement_timeout = 0"))
            for invariant in INVARIANTS:
                with snapshot.begin_nested() as settings:
                    for setting in filter(None, invariant.before.split(";")):
                        snapshot.execute(text(setting))
                    checked = snapshot.scalar(text(invariant.checked)) or 0
                    limited = text(
                        f"SELECT * FROM ({invariant.breaches}) AS breach ORDER BY 1 LIMIT {BREACHES_MAX + 1}"
                    )
                    rows = [dict(row) for row in snapshot.execute(limited).mappings()]
                    settings.rollback()  # and the settings with it
                truncated = len(rows) > BREACHES_MAX
                findings.append(Finding(invariant.number, invariant.name, checked, rows[:BREACHES_MAX], truncated))
        return findings
