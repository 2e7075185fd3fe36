"""What must hold of a tenant's books at any moment: one query each, whose rows are what breaks it; %s is the tenant.

Written without the audit, to hold the audit to it too.
"""

from typing import LiteralString

PAID_IN_ORDER = "what a wallet was told to pay, it paid in acceptance order"
INVARIANTS: dict[str, LiteralString] = {
    # --- entries and accounts ------------------------------------------------------------------------------------
    "a transfer sums to zero per asset": """
        SELECT e.seq, e.asset_id, sum(e.amount) FROM entries e JOIN commands c USING (seq)
        WHERE c.tenant_id = %s GROUP BY 1, 2 HAVING sum(e.amount) <> 0
    """,
    "an account is the sum of its entries, its versions count them, its last balance stands in the last one": """
        SELECT w.code, a.posted, a.held, a.version, e.* FROM accounts a JOIN wallets w ON w.id = a.wallet_id
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(amount), 0)::bigint AS total, count(*) AS n, COALESCE(max(version), 0) AS last_version,
                   COALESCE((array_agg(balance_after ORDER BY version DESC))[1], 0) AS last_balance,
                   COALESCE((array_agg(held_after ORDER BY version DESC))[1], 0) AS last_held,
                   COALESCE((array_agg(at ORDER BY version DESC))[1], a.changed_at) AS last_at
            FROM entries WHERE account_id = a.id
        ) e
        WHERE w.tenant_id = %s AND (a.posted, a.posted, a.held, a.version, a.version, a.changed_at)
            IS DISTINCT FROM (e.total, e.last_balance, e.last_held, e.n, e.last_version, e.last_at)
    """,
    "each entry's balance is the one before plus its amount, and its time is not before that of the one before": """
        SELECT * FROM (
            SELECT w.code, e.version, e.balance_after, e.held_after, e.at,
                   sum(e.amount) OVER (PARTITION BY e.account_id ORDER BY e.version) AS expected,
                   lag(e.at) OVER (PARTITION BY e.account_id ORDER BY e.version) AS before
            FROM entries e JOIN accounts a ON a.id = e.account_id JOIN wallets w ON w.id = a.wallet_id
            WHERE w.tenant_id = %s
        ) e WHERE balance_after <> expected OR held_after < 0 OR at < before
    """,
    # Credits past their time leave a balance of which they were no longer a part.
    "a player's balance falls below zero by a reversal that was allowed to, or by the end of credits": """
        SELECT * FROM (
            SELECT w.code, e.version, c.type, c.options::jsonb->'allow_negative' = 'true' AS allowed,
                   e.balance_after - e.held_after AS available, lag(e.balance_after - e.held_after, 1, 0::bigint)
                   OVER (PARTITION BY e.account_id ORDER BY e.version) AS before
            FROM entries e JOIN commands c USING (seq)
            JOIN accounts a ON a.id = e.account_id JOIN wallets w ON w.id = a.wallet_id
            WHERE w.tenant_id = %s AND NOT a.allow_negative
        ) e WHERE available < 0 AND available < before
            AND NOT (type = 'reverse' AND allowed IS TRUE) AND type <> 'expire_credits'
    """,
    # --- commands and outcomes -----------------------------------------------------------------------------------
    "a command is pending or has its outcome, never both, never neither": """
        SELECT c.seq, p.seq, o.seq FROM commands c LEFT JOIN pending p ON p.seq = COALESCE(c.group_seq, c.seq)
        LEFT JOIN outcomes o ON o.seq = c.seq
        WHERE c.tenant_id = %s AND (p.seq IS NULL) = (o.seq IS NULL)
    """,
    "an applied command has its transfer, with the entries that its kind has; any other has none": """
        SELECT * FROM (
            SELECT c.seq, c.type, o.code, o.status = 'applied' AS applied, t.seq IS NOT NULL AS transferred,
                   t.at = o.at AND e.same_time AS same_time, e.amounts, CASE
                WHEN c.type IN ('hold', 'release', 'expire_hold') THEN e.amounts = '{0}'
                WHEN c.type IN ('capture', 'expire_credits') THEN e.amounts[1] = -e.amounts[2] AND e.n = 2
                WHEN c.type = 'exchange' THEN e.n = 4 AND e.amounts @> ARRAY[
                    c.amount, -c.amount,
                    (c.options->>'to_amount')::bigint, -(c.options->>'to_amount')::bigint]
                WHEN c.type IN ('reverse', 'close') THEN e.n IS NOT NULL
                ELSE e.amounts = ARRAY[-abs(c.amount), abs(c.amount)] END AS as_expected
            FROM commands c LEFT JOIN outcomes o USING (seq) LEFT JOIN transfers t USING (seq)
            LEFT JOIN LATERAL (
                SELECT array_agg(amount ORDER BY amount) AS amounts, count(*) AS n, bool_and(at = o.at) AS same_time
                FROM entries WHERE seq = c.seq HAVING count(*) > 0
            ) e ON true
            WHERE c.tenant_id = %s
        ) found WHERE CASE WHEN applied THEN (transferred AND same_time AND as_expected) IS NOT TRUE
                      ELSE transferred OR amounts IS NOT NULL END
    """,
    "an outcome tells of the balances that its own entries left": """
        SELECT o.seq, told.value, e.* FROM outcomes o JOIN commands c USING (seq)
        CROSS JOIN LATERAL json_array_elements(o.accounts) AS told
        LEFT JOIN wallets w ON w.tenant_id = c.tenant_id AND w.code = told.value->>'wallet'
        LEFT JOIN assets s ON s.tenant_id = c.tenant_id AND s.code = told.value->>'asset'
        LEFT JOIN accounts a ON a.wallet_id = w.id AND a.asset_id = s.id
        LEFT JOIN entries e ON e.account_id = a.id AND e.version = (told.value->>'version')::bigint
        WHERE c.tenant_id = %s AND o.status = 'applied' AND (e.seq, e.balance_after, e.held_after) IS DISTINCT FROM
            (o.seq, (told.value->>'posted')::bigint, (told.value->>'held')::bigint)
    """,
    PAID_IN_ORDER: """
        SELECT * FROM (
            SELECT w.code, COALESCE(c.group_seq, c.seq) AS seq,
                   lag(COALESCE(c.group_seq, c.seq)) OVER (PARTITION BY e.account_id ORDER BY e.version) AS before
            FROM entries e JOIN commands c USING (seq)
            JOIN wallets w ON w.tenant_id = c.tenant_id AND w.code = c.wallet
            JOIN accounts a ON a.id = e.account_id AND a.wallet_id = w.id
            WHERE c.tenant_id = %s
        ) e WHERE seq < before
    """,
    "of a group all are applied, or none and one has a code of its own; or all are cancelled, or all failed": """
        SELECT c.group_seq, array_agg(o.code) FROM commands c JOIN outcomes o USING (seq)
        WHERE c.tenant_id = %s AND c.group_seq IS NOT NULL GROUP BY 1
        HAVING count(DISTINCT o.status) > 1 OR min(o.status) = 'rejected' AND count(*) <> 1 +
            count(*) FILTER (WHERE o.code = 'group_refused')
    """,
    # --- holds ---------------------------------------------------------------------------------------------------
    "what an account holds is what its open holds hold": """
        SELECT w.code, a.held, h.total FROM accounts a JOIN wallets w ON w.id = a.wallet_id
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(remaining), 0) AS total FROM holds WHERE account_id = a.id AND status = 'open'
        ) h WHERE w.tenant_id = %s AND a.held <> h.total
    """,
    "a hold that was applied is there, of its wallet, and what was captured of it is what its captures moved": """
        SELECT c.seq, o.status, h.*, x.moved FROM commands c JOIN outcomes o USING (seq) LEFT JOIN holds h USING (seq)
        LEFT JOIN entries e ON e.seq = c.seq AND e.account_id = h.account_id
        CROSS JOIN LATERAL (
            SELECT -COALESCE(sum(m.amount), 0) AS moved FROM commands k JOIN entries m USING (seq)
            WHERE k.ref_seq = c.seq AND k.type = 'capture' AND m.account_id = h.account_id
        ) x
        WHERE c.tenant_id = %s AND c.type = 'hold' AND CASE WHEN o.status = 'applied'
            THEN (h.amount, h.captured, e.amount) IS DISTINCT FROM (c.amount, x.moved::bigint, 0::bigint)
                 OR (h.status = 'open' AND h.remaining <> h.amount - h.captured)
                 OR (h.ended_at IS NULL) <> (h.status = 'open')
            ELSE h.seq IS NOT NULL END
    """,
    # --- lots ----------------------------------------------------------------------------------------------------
    "a lot is what its record adds up to, and its account counts those that are not used up": """
        SELECT l.seq, l.n, l.remaining, l.held, r.* FROM lots l JOIN accounts a ON a.id = l.account_id
        JOIN wallets w ON w.id = a.wallet_id
        CROSS JOIN LATERAL (
            SELECT sum(amount) AS remaining, sum(held) AS held FROM lot_entries WHERE (lot_seq, lot_n) = (l.seq, l.n)
        ) r
        WHERE w.tenant_id = %s AND ((l.remaining, l.held) IS DISTINCT FROM (r.remaining::bigint, r.held::bigint)
            OR a.lots <> (SELECT count(*) FROM lots WHERE account_id = a.id AND remaining > 0))
    """,
    "lots and their holds are within the balance": """
        SELECT w.code, a.posted, a.held, l.* FROM accounts a JOIN wallets w ON w.id = a.wallet_id
        CROSS JOIN LATERAL (SELECT sum(remaining) AS remaining, sum(held) AS held FROM lots WHERE account_id = a.id) l
        WHERE w.tenant_id = %s AND (l.remaining > greatest(a.posted, a.held) OR l.held > a.held)
    """,
    "what a lot holds is what the open holds took of it": """
        WITH of_holds AS (
            SELECT (taken.value->>0)::bigint AS seq, (taken.value->>1)::int AS n,
                   sum((taken.value->>2)::bigint)::bigint AS held
            FROM holds h CROSS JOIN LATERAL json_array_elements(h.lots) AS taken
            WHERE h.status = 'open' GROUP BY 1, 2
        )
        SELECT l.seq, l.n, l.held, h.held FROM lots l JOIN commands c USING (seq) LEFT JOIN of_holds h USING (seq, n)
        WHERE c.tenant_id = %s AND l.held <> COALESCE(h.held, 0)
    """,
    # --- reversals -----------------------------------------------------------------------------------------------
    "reversals move back from every account no more than came, the whole of it if all is reversed": """
        WITH reversed AS (
            SELECT c.ref_seq AS seq, e.account_id, sum(e.amount) AS amount
            FROM commands c JOIN entries e USING (seq) WHERE c.tenant_id = %s AND c.type = 'reverse' GROUP BY 1, 2
        )
        SELECT seq, account_id, e.amount, r.amount FROM reversed r LEFT JOIN entries e USING (seq, account_id)
        WHERE e.seq IS NULL OR sign(r.amount) * sign(e.amount) > 0 OR abs(r.amount) > abs(e.amount)
    """,
    "what was reversed of a command is what its reversals moved": """
        SELECT c.seq, r.reversed, e.amount, x.moved FROM commands c JOIN outcomes o USING (seq)
        JOIN wallets w ON w.tenant_id = c.tenant_id AND w.code = c.wallet
        JOIN assets s ON s.tenant_id = c.tenant_id AND s.code = c.asset
        JOIN accounts a ON a.wallet_id = w.id AND a.asset_id = s.id
        JOIN entries e ON e.seq = c.seq AND e.account_id = a.id
        LEFT JOIN reversals r ON r.seq = c.seq
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(m.amount), 0) AS moved FROM commands k JOIN entries m USING (seq)
            WHERE k.ref_seq = c.seq AND k.type = 'reverse' AND m.account_id = a.id
        ) x
        WHERE c.tenant_id = %s AND (COALESCE(r.reversed, 0) <> abs(x.moved) OR r.reversed > abs(e.amount))
    """,
    # --- supply --------------------------------------------------------------------------------------------------
    "what the partitions may still issue is what is left of the largest supply": """
        SELECT s.code, s.limits, -ours.total AS circulates, shares.total FROM assets s
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(a.posted), 0) AS total FROM accounts a JOIN wallets w ON w.id = a.wallet_id
            WHERE a.asset_id = s.id AND w.code LIKE '@%%'
        ) ours
        CROSS JOIN LATERAL (SELECT sum(headroom) AS total FROM supply_shares WHERE asset_id = s.id) shares
        WHERE s.tenant_id = %s AND (s.limits->>'max_supply')::bigint + ours.total IS DISTINCT FROM shares.total
    """,
}
