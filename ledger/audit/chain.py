"""The hash chain (ledger.chain), made again by PostgreSQL from what is stored.

Every hash is made from the stored one before it, so no link waits for another: a change shows at the transfer that was
changed, and at the next one if somebody made its hash fit. A tail that was cut off shows at the head.
"""

from ledger.audit.invariant import Invariant

CHAIN = (
    Invariant(
        8,
        "the hash chain over transfers has every transfer since it began, each as it was written",
        "SELECT count(*) FROM transfers WHERE position BETWEEN :low AND :high",
        """
        WITH links AS (
            SELECT seq, tenant_id, partition, position, at, hash,
                   lag(position, 1, 0::bigint) OVER chain AS position_before,
                   lag(hash, 1, decode(repeat('00', 32), 'hex')) OVER chain AS hash_before
            FROM transfers
            WHERE partition IN (SELECT partition FROM partitions) AND position BETWEEN :low - 1 AND :high
            WINDOW chain AS (PARTITION BY partition ORDER BY position)
        ), lines AS (
            SELECT seq, count(*) AS n, string_agg(
                int8send(account_id) || int8send(version) || int8send(seq) || int8send(asset_id) || int8send(amount)
                || int8send(balance_after) || int8send(held_after), ''::bytea ORDER BY account_id, version
            ) AS bytes
            FROM entries WHERE seq IN (SELECT seq FROM links) GROUP BY seq
        ), made_again AS (
            SELECT l.*, sha256(
                l.hash_before || int8send(l.seq) || int8send(l.tenant_id) || int8send(l.partition)
                || int8send(l.position) || int8send((extract(epoch FROM l.at) * 1000000)::bigint)
                || int8send(COALESCE(e.n, 0)) || COALESCE(e.bytes, ''::bytea) || COALESCE(c.request_hash, ''::bytea)
            ) AS expected
            FROM links l LEFT JOIN lines e USING (seq) LEFT JOIN commands c USING (seq)
            WHERE l.position >= :low
        )
        SELECT partition, position, seq, what FROM (
            SELECT partition, position, seq, CASE
                WHEN position <> position_before + 1 THEN format('follows position %s', position_before)
                WHEN hash IS DISTINCT FROM expected
                    THEN 'its hash is not that of the transfer, its entries, its request and the hash before'
                END AS what
            FROM made_again
            UNION ALL
            SELECT t.partition, NULL, t.seq, 'without a link, since the chain began'
            FROM transfers t LEFT JOIN chain_heads h USING (partition)
            WHERE :low <= 1 AND t.position IS NULL AND t.at >= COALESCE(h.began_at, '-infinity')
            UNION ALL
            SELECT p.partition, h.position, l.seq, CASE
                WHEN h.partition IS NULL THEN 'the chain of this partition has no head'
                WHEN h.position <> COALESCE(l.position, 0)
                    THEN format('the head is here, the last transfer at position %s', COALESCE(l.position, 0))
                WHEN h.hash <> COALESCE(l.hash, decode(repeat('00', 32), 'hex'))
                    THEN 'the head has another hash than the last transfer'
                END
            FROM partitions p LEFT JOIN chain_heads h USING (partition) LEFT JOIN LATERAL (
                SELECT seq, position, hash FROM transfers
                WHERE partition = p.partition AND position IS NOT NULL ORDER BY position DESC LIMIT 1
            ) l ON true
            WHERE :low <= 1
        ) x WHERE what IS NOT NULL
        """,
        note="""
        SELECT format('transfers without a link, from before the chain began at %s: %s', min(h.began_at), b.n)
        FROM chain_heads h, (SELECT count(*) AS n FROM transfers WHERE position IS NULL) b
        GROUP BY b.n HAVING b.n > 0
        """,
        along="position",
    ),
)
