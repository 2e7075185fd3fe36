"""The registers that follow the journal: what is held, holds, lots, reversals, shares of the supply."""

from ledger.audit.invariant import Invariant

REGISTERS = (
    Invariant(
        3,
        "what is held is the sum of open holds, and no player fell below zero but by a reversal that was allowed to",
        "SELECT count(*) FROM accounts WHERE id BETWEEN :low AND :high",
        """
        WITH holding AS (
            SELECT account_id, sum(remaining) AS held FROM holds WHERE account_id BETWEEN :low AND :high
            GROUP BY account_id
        ), ours AS (
            SELECT * FROM accounts WHERE id BETWEEN :low AND :high
        ), falls AS (
            SELECT account_id, version, seq, balance_after - held_after AS available,
                   lag(balance_after - held_after, 1, 0::bigint) OVER in_order AS before
            FROM entries WHERE account_id BETWEEN :low AND :high
            WINDOW in_order AS (PARTITION BY account_id ORDER BY version)
        )
        SELECT a.id AS account_id, w.code AS wallet, s.code AS asset, a.shard, x.what
        FROM (
            SELECT COALESCE(a.id, h.account_id) AS account_id,
                   format('%s held, the open holds have %s', COALESCE(a.held, 0), COALESCE(h.held, 0)) AS what
            FROM ours a FULL JOIN holding h ON h.account_id = a.id
            WHERE a.held IS DISTINCT FROM COALESCE(h.held, 0)
            UNION ALL
            SELECT a.id, format('%s held, the last entry says %s', a.held, e.held_after)
            FROM ours a JOIN entries e ON e.account_id = a.id AND e.version = a.version
            WHERE a.held <> e.held_after
            UNION ALL
            SELECT id, format('posted %s, held %s, never to fall below %s', posted, held, floor)
            FROM ours WHERE posted - held < floor AND NOT allow_negative
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
        along="account",
    ),
    Invariant(
        9,
        "every hold is as its command and its captures left it, and ended as its status says",
        "SELECT count(*) FROM holds",
        """
        WITH placed AS (
            SELECT c.seq, c.amount FROM commands c JOIN transfers t USING (seq) WHERE c.type = 'hold'
        ), captures AS (
            SELECT c.ref_seq AS seq, e.account_id, -sum(e.amount) AS amount
            FROM commands c JOIN entries e ON e.seq = c.seq AND e.amount < 0 WHERE c.type = 'capture' GROUP BY 1, 2
        ), ends AS (
            SELECT c.ref_seq AS seq, min(CASE c.type WHEN 'release' THEN 'released' ELSE 'expired' END) AS status,
                   count(*) AS n
            FROM commands c JOIN transfers t USING (seq) WHERE c.type IN ('release', 'expire_hold') GROUP BY 1
        ), pieces AS (
            SELECT h.seq, sum((piece ->> 2)::bigint) AS amount
            FROM holds h CROSS JOIN LATERAL json_array_elements(h.lots) AS piece GROUP BY h.seq
        )
        SELECT seq, what FROM (
            SELECT COALESCE(h.seq, p.seq) AS seq, CASE
                WHEN h.seq IS NULL THEN 'placed, and not in the register'
                WHEN p.seq IS NULL THEN 'no applied command placed it'
                WHEN h.amount <> p.amount THEN format('%s held at first, its command said %s', h.amount, p.amount)
                WHEN h.captured <> COALESCE(c.amount, 0)
                    THEN format('%s captured, its captures took %s', h.captured, COALESCE(c.amount, 0))
                WHEN h.captured + h.remaining > h.amount OR h.status = 'open' AND h.captured + h.remaining < h.amount
                    THEN format('%s: %s captured and %s left of %s', h.status, h.captured, h.remaining, h.amount)
                WHEN h.remaining <> COALESCE(i.amount, h.remaining)
                    THEN format('%s left, its pieces have %s', h.remaining, i.amount)
                WHEN e.n > 1 THEN format('ended %s times', e.n)
                WHEN e.status <> h.status OR e.status IS NULL AND h.status IN ('released', 'expired')
                    OR h.status = 'captured' AND h.captured = 0 OR (h.status = 'open') <> (h.ended_at IS NULL)
                    THEN format('%s, by its commands %s', h.status, COALESCE(e.status, 'neither released nor expired'))
                END AS what
            FROM holds h FULL JOIN placed p USING (seq) LEFT JOIN ends e ON e.seq = h.seq
            LEFT JOIN captures c ON c.seq = h.seq AND c.account_id = h.account_id LEFT JOIN pieces i ON i.seq = h.seq
        ) x WHERE what IS NOT NULL
        """,
    ),
    Invariant(
        10,
        "every lot is the sum of its changes, and no account has more in lots than it has",
        "SELECT count(*) FROM lots",
        """
        WITH changes AS (
            SELECT lot_seq AS seq, lot_n AS n, sum(amount) AS remaining, sum(held) AS held
            FROM lot_entries WHERE lot_seq > 0 GROUP BY 1, 2  -- 0: of the plain rest
        ), holding AS (
            SELECT (piece ->> 0)::bigint AS seq, (piece ->> 1)::smallint AS n, sum((piece ->> 2)::bigint) AS held
            FROM holds h CROSS JOIN LATERAL json_array_elements(h.lots) AS piece WHERE h.status = 'open' GROUP BY 1, 2
        ), sums AS (
            SELECT account_id, sum(remaining - held) AS free, count(*) FILTER (WHERE remaining > 0) AS n
            FROM lots GROUP BY account_id
        )
        SELECT seq, n, account_id, what FROM (
            SELECT COALESCE(l.seq, c.seq) AS seq, COALESCE(l.n, c.n) AS n, l.account_id, CASE
                WHEN l.seq IS NULL THEN 'changed, and not in the register'
                WHEN l.remaining <> COALESCE(c.remaining, 0)
                    THEN format('%s left, its changes sum to %s', l.remaining, COALESCE(c.remaining, 0))
                WHEN l.held <> COALESCE(c.held, 0)
                    THEN format('%s held, its changes sum to %s', l.held, COALESCE(c.held, 0))
                WHEN l.held <> COALESCE(h.held, 0)
                    THEN format('%s held, open holds have %s', l.held, COALESCE(h.held, 0))
                END AS what
            FROM lots l FULL JOIN changes c USING (seq, n) LEFT JOIN holding h ON h.seq = l.seq AND h.n = l.n
            UNION ALL
            SELECT NULL, NULL, a.id, CASE
                WHEN a.lots <> COALESCE(s.n, 0)
                    THEN format('says %s lots, %s are not used up', a.lots, COALESCE(s.n, 0))
                WHEN NOT a.allow_negative AND a.posted - a.held - s.free < a.floor
                    THEN format('%s of the %s available are in lots', s.free, a.posted - a.held)
                END
            FROM accounts a LEFT JOIN sums s ON s.account_id = a.id
        ) x WHERE what IS NOT NULL
        """,
    ),
    Invariant(
        11,
        "what is reversed of a command is what its reversals moved back, and never more than it moved",
        "SELECT count(*) FROM reversals",
        """
        WITH own AS (  -- what each command moved of its own asset, and which one it reversed
            SELECT c.seq, c.type, c.ref_seq, s.id AS asset_id FROM commands c
            JOIN assets s ON s.tenant_id = c.tenant_id AND s.code = c.asset
            WHERE c.type = 'reverse' OR c.seq IN (SELECT seq FROM reversals)
        ), moved AS (
            SELECT o.seq, o.type, o.ref_seq, sum(e.amount) AS amount
            FROM own o JOIN entries e ON e.seq = o.seq AND e.asset_id = o.asset_id AND e.amount > 0
            GROUP BY o.seq, o.type, o.ref_seq
        ), back AS (
            SELECT ref_seq AS seq, sum(amount) AS amount FROM moved WHERE type = 'reverse' GROUP BY ref_seq
        )
        SELECT seq, what FROM (
            SELECT COALESCE(r.seq, b.seq) AS seq, CASE
                WHEN r.reversed IS DISTINCT FROM b.amount
                    THEN format('%s reversed, its reversals moved %s', COALESCE(r.reversed, 0), COALESCE(b.amount, 0))
                WHEN r.reversed > COALESCE(m.amount, 0)
                    THEN format('%s reversed of %s', r.reversed, COALESCE(m.amount, 0))
                END AS what
            FROM reversals r FULL JOIN back b USING (seq) LEFT JOIN moved m ON m.seq = r.seq
        ) x WHERE what IS NOT NULL
        """,
    ),
    Invariant(
        12,
        "what is in circulation of a capped asset and what may still be issued make its maximum supply",
        "SELECT count(*) FROM assets WHERE limits ->> 'max_supply' IS NOT NULL",
        """
        WITH capped AS (
            SELECT id, code, tenant_id, (limits ->> 'max_supply')::bigint AS max_supply
            FROM assets WHERE limits ->> 'max_supply' IS NOT NULL
        )
        SELECT c.tenant_id, c.code AS asset, c.max_supply, i.circulation, s.headroom FROM capped c
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(a.posted), 0) AS circulation FROM accounts a JOIN wallets w ON w.id = a.wallet_id
            WHERE a.asset_id = c.id AND w.code NOT LIKE '@%'
        ) i CROSS JOIN LATERAL (
            SELECT COALESCE(sum(headroom), 0) AS headroom FROM supply_shares WHERE asset_id = c.id
        ) s
        WHERE i.circulation + s.headroom <> c.max_supply
        """,
    ),
)
