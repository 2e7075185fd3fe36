"""The journal: transfers, entries, and the balances that they make."""

from ledger.audit.invariant import Invariant

# Two api processes may commit out of the order in which they took their numbers: by no more than the time that an
# accepting statement may take (ledger.db.STATEMENT_TIMEOUT_MS). Later than that, the order was the drain's to keep.
CONCURRENT_WITHIN = "10 seconds"

JOURNAL = (
    Invariant(
        1,
        "every transfer sums to zero per asset",
        # The whole ledger is the sum of its transfers, and invariant 2 ties the balances to it.
        "SELECT count(*) FROM transfers WHERE seq BETWEEN :low AND :high",
        """
        SELECT e.seq, s.code AS asset, e.total
        FROM (
            SELECT seq, asset_id, sum(amount) AS total FROM entries WHERE seq BETWEEN :low AND :high
            GROUP BY seq, asset_id
        ) e
        LEFT JOIN assets s ON s.id = e.asset_id
        WHERE e.total <> 0
        """,
        along="seq",
    ),
    Invariant(
        2,
        "every balance is the sum of its entries; their versions have no gap, and time never runs backwards along them",
        "SELECT count(*) FROM accounts WHERE id BETWEEN :low AND :high",
        """
        WITH lines AS (
            SELECT account_id, version, asset_id, amount, balance_after, at, lag(at) OVER in_order AS at_before,
                   lag(version, 1, 0::bigint) OVER in_order AS version_before,
                   lag(balance_after, 1, 0::bigint) OVER in_order AS balance_before
            FROM entries WHERE account_id BETWEEN :low AND :high
            WINDOW in_order AS (PARTITION BY account_id ORDER BY version)
        ), totals AS (
            SELECT account_id, sum(amount) AS total, max(version) AS version, min(asset_id) AS asset_min,
                   max(asset_id) AS asset_max
            FROM entries WHERE account_id BETWEEN :low AND :high GROUP BY account_id
        ), broken AS (
            SELECT account_id, format('version %s follows %s', version, version_before) AS what
            FROM lines WHERE version <> version_before + 1
            UNION ALL
            SELECT account_id, format('version %s: %s + %s is not %s', version, balance_before, amount, balance_after)
            FROM lines WHERE balance_before + amount <> balance_after
            UNION ALL
            SELECT account_id, format('version %s is of a time before that of version %s', version, version_before)
            FROM lines WHERE at < at_before
            UNION ALL
            SELECT COALESCE(a.id, t.account_id), CASE
                WHEN a.id IS NULL THEN 'entries of an account that does not exist'
                WHEN t.asset_min <> a.asset_id OR t.asset_max <> a.asset_id THEN 'entries in another asset'
                WHEN a.posted <> COALESCE(t.total, 0)
                    THEN format('posted is %s, the entries sum to %s', a.posted, COALESCE(t.total, 0))
                WHEN a.version <> COALESCE(t.version, 0)
                    THEN format('version is %s, the last entry has %s', a.version, COALESCE(t.version, 0))
                END
            FROM (SELECT * FROM accounts WHERE id BETWEEN :low AND :high) a
            FULL JOIN totals t ON t.account_id = a.id
        )
        SELECT b.account_id, w.code AS wallet, s.code AS asset, a.shard, b.what
        FROM broken b LEFT JOIN accounts a ON a.id = b.account_id
        LEFT JOIN wallets w ON w.id = a.wallet_id LEFT JOIN assets s ON s.id = a.asset_id
        WHERE b.what IS NOT NULL
        """,
        along="account",
    ),
    Invariant(
        5,
        "what a wallet was told, it did in acceptance order",
        "SELECT count(*) FROM entries e JOIN commands c USING (seq) WHERE e.account_id BETWEEN :low AND :high",
        f"""
        WITH own AS (
            SELECT e.account_id, e.version, e.seq, c.wallet, c.accepted_at,
                   max(e.seq) OVER (
                       PARTITION BY e.account_id ORDER BY e.version ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                   ) AS overtaken_by
            FROM entries e JOIN commands c USING (seq)
            JOIN accounts a ON a.id = e.account_id
            JOIN wallets w ON w.id = a.wallet_id AND w.tenant_id = c.tenant_id AND w.code = c.wallet
            WHERE e.account_id BETWEEN :low AND :high
        )
        SELECT own.account_id, own.wallet, own.version, own.seq, own.overtaken_by
        FROM own JOIN commands later ON later.seq = own.overtaken_by
        WHERE own.overtaken_by > own.seq AND later.accepted_at > own.accepted_at + interval '{CONCURRENT_WITHIN}'
        """,
        along="account",
    ),
)
