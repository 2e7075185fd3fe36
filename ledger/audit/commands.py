"""What was asked, and that each of it has one fate."""

from ledger.audit.invariant import Invariant

COMMANDS = (
    Invariant(
        4,
        "every command is pending or has one outcome, and a transfer exactly if it was applied",
        "SELECT count(*) FROM commands WHERE seq BETWEEN :low AND :high",
        """
        WITH queued AS (  -- a group is queued as one, under its first command
            SELECT seq, partition FROM pending
            WHERE partition IN (SELECT partition FROM partitions) AND seq BETWEEN :low AND :high AND size = 1
            UNION ALL
            SELECT COALESCE(c.seq, p.seq), p.partition
            FROM pending p LEFT JOIN commands c ON c.group_seq = p.seq
            WHERE p.size > 1 AND COALESCE(c.seq, p.seq) BETWEEN :low AND :high
        )
        SELECT seq, what FROM (
            SELECT seq, CASE
                WHEN c.seq IS NULL THEN 'no such command was accepted'
                WHEN o.seq IS NULL AND p.seq IS NULL THEN 'neither pending nor with an outcome'
                WHEN o.seq IS NOT NULL AND p.seq IS NOT NULL THEN 'pending, with an outcome'
                WHEN c.type = 'tombstone' AND o.status IS DISTINCT FROM 'cancelled' THEN 'a tombstone, not cancelled'
                WHEN p.partition <> c.partition THEN 'pending in another partition than its own'
                WHEN o.status = 'applied' AND t.seq IS NULL THEN 'applied, without its transfer'
                WHEN o.status = 'applied' AND e.seq IS NULL AND c.type <> 'close'  -- of a wallet that had nothing
                    THEN 'applied, its transfer without entries'
                WHEN e.n = 1 AND c.type NOT IN ('hold', 'release', 'expire_hold')
                    THEN 'applied, its transfer with a single entry'
                WHEN o.status IS DISTINCT FROM 'applied' AND (t.seq IS NOT NULL OR e.seq IS NOT NULL)
                    THEN 'not applied, with a transfer'
                WHEN t.tenant_id <> c.tenant_id OR t.partition <> c.partition
                    THEN 'its transfer names another tenant or partition'
                END AS what
            FROM (SELECT * FROM commands WHERE seq BETWEEN :low AND :high) c
            FULL JOIN (SELECT * FROM outcomes WHERE seq BETWEEN :low AND :high) o USING (seq)
            FULL JOIN queued p USING (seq)
            FULL JOIN (SELECT * FROM transfers WHERE seq BETWEEN :low AND :high) t USING (seq)
            FULL JOIN (
                SELECT seq, count(*) AS n FROM entries WHERE seq BETWEEN :low AND :high GROUP BY seq
            ) e USING (seq)
            UNION ALL
            SELECT seq, format('%s outcomes', count(*)) FROM outcomes WHERE seq BETWEEN :low AND :high
            GROUP BY seq HAVING count(*) > 1
            UNION ALL
            SELECT c.group_seq, format('of a group of %s, %s are applied', count(*), count(t.seq))
            FROM commands c LEFT JOIN transfers t USING (seq) WHERE c.group_seq BETWEEN :low AND :high
            GROUP BY c.group_seq HAVING count(t.seq) NOT IN (0, count(*))
        ) x WHERE what IS NOT NULL
        """,
        before="SET LOCAL enable_indexonlyscan = off",  # a primary key would vouch for itself
        along="seq",
    ),
    Invariant(
        6,
        "a client used each idempotency key for one command",
        "SELECT count(*) FROM commands WHERE seq BETWEEN :low AND :high",
        """
        SELECT client_id, idempotency_key, count(*) AS commands, min(seq) AS first_seq
        FROM commands GROUP BY client_id, idempotency_key HAVING count(*) > 1
        """,
        before="SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off",  # not by the index it doubts
        along="seq",
        in_parts="""
        SELECT c.client_id, c.idempotency_key, count(*) + 1 AS commands, c.seq AS first_seq
        FROM commands c JOIN commands later USING (client_id, idempotency_key)
        WHERE c.seq BETWEEN :low AND :high AND later.seq > c.seq
        GROUP BY c.client_id, c.idempotency_key, c.seq
        """,
    ),
)
