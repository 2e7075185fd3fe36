"""Webhooks: every outcome and every low balance that owes a delivery has its row, and every row tells of something."""

from ledger.audit.invariant import Invariant

WEBHOOKS = (
    Invariant(
        7,
        "every outcome and low balance that an endpoint is owed has its delivery, and each is as its attempts left it",
        "SELECT count(*) FROM deliveries",
        # An endpoint is owed what was decided since it last chose what it wants (ledger.endpoints), and is not purged.
        # A balance fell where an entry left less than the threshold, as it stands since its last change, and the entry
        # before did not.
        """
        WITH listening AS (
            SELECT id, tenant_id, owed_after, wallets FROM webhook_endpoints
            WHERE status = 'enabled' AND (event_types IS NULL OR 'wallet.balance_low' = ANY(event_types))
        ), low AS (
            SELECT seq, tenant_id, outcome_seq, data ->> 'wallet' AS wallet, data ->> 'asset' AS asset,
                   (data ->> 'version')::bigint AS version, (data ->> 'below')::bigint AS below
            FROM events WHERE type = 'wallet.balance_low'
        ), watched AS (
            SELECT a.id, w.tenant_id, w.code AS wallet, s.code AS asset,
                   COALESCE(a.limits ->> 'balance_low_below', s.limits ->> 'balance_low_below')::bigint AS below,
                   (SELECT max(h.at) FROM changes h
                    WHERE h.tenant_id = w.tenant_id AND h.asset = s.code AND h.member = 'limits'
                      AND (h.wallet IS NULL OR h.wallet = w.code)) AS since
            FROM accounts a JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
            WHERE NOT a.allow_negative
              AND COALESCE(a.limits ->> 'balance_low_below', s.limits ->> 'balance_low_below') IS NOT NULL
        ), falls AS (
            SELECT a.tenant_id, a.wallet, a.asset, e.seq, e.version
            FROM watched a JOIN entries e ON e.account_id = a.id AND (a.since IS NULL OR e.at > a.since)
            LEFT JOIN entries b ON b.account_id = a.id AND b.version = e.version - 1
            WHERE e.balance_after - e.held_after < a.below
              AND a.below <= COALESCE(b.balance_after - b.held_after, 0)
        )
        SELECT o.seq, e.id AS endpoint_id, 'it is owed, and has no delivery' AS what
        FROM webhook_endpoints e
        JOIN outcomes o ON o.position > e.owed_after JOIN commands c ON c.seq = o.seq AND c.tenant_id = e.tenant_id
        WHERE e.status = 'enabled'
          AND (e.event_types IS NULL OR e.event_types @> ARRAY[
              CASE WHEN o.code = 'expired' THEN 'command.expired' ELSE 'command.' || o.status END])
          AND (e.wallets IS NULL OR c.wallet = ANY(e.wallets) OR c.to_wallet = ANY(e.wallets))
          AND NOT EXISTS (SELECT FROM deliveries d WHERE d.endpoint_id = e.id AND d.seq = o.seq)
        UNION ALL
        SELECT f.seq, e.id, format('version %s of %s/%s fell low, and it was not told', f.version, f.wallet, f.asset)
        FROM falls f JOIN outcomes o USING (seq)
        JOIN listening e ON e.tenant_id = f.tenant_id AND o.position > e.owed_after
        WHERE (e.wallets IS NULL OR f.wallet = ANY(e.wallets))
          AND NOT EXISTS (
              SELECT FROM low v JOIN deliveries d ON d.seq = v.seq AND d.endpoint_id = e.id
              WHERE v.outcome_seq = f.seq AND v.wallet = f.wallet AND v.asset = f.asset AND v.version = f.version
          )
        UNION ALL
        SELECT v.seq, NULL, format('version %s of %s/%s did not fall low, or is told twice',
                                   v.version, v.wallet, v.asset)
        FROM (SELECT *, row_number() OVER (PARTITION BY tenant_id, wallet, asset, version ORDER BY seq) AS n FROM low) v
        LEFT JOIN wallets w ON w.tenant_id = v.tenant_id AND w.code = v.wallet
        LEFT JOIN assets s ON s.tenant_id = v.tenant_id AND s.code = v.asset
        LEFT JOIN accounts a ON a.wallet_id = w.id AND a.asset_id = s.id
        LEFT JOIN entries e ON e.account_id = a.id AND e.version = v.version AND e.seq = v.outcome_seq
        LEFT JOIN entries b ON b.account_id = a.id AND b.version = v.version - 1
        WHERE v.n > 1 OR (e.balance_after - e.held_after < v.below
                          AND v.below <= COALESCE(b.balance_after - b.held_after, 0)) IS NOT TRUE
        UNION ALL
        SELECT d.seq, d.endpoint_id, 'there is nothing that it tells of'
        FROM deliveries d WHERE NOT EXISTS (SELECT FROM outcomes o WHERE o.seq = d.seq)
          AND NOT EXISTS (SELECT FROM events v WHERE v.seq = d.seq)
        UNION ALL
        SELECT d.seq, d.endpoint_id, format('%s after %s attempts, of which %s are noted and %s succeeded',
                                            d.status, d.attempts, a.n, a.succeeded)
        FROM deliveries d CROSS JOIN LATERAL (
            SELECT count(*) AS n, count(*) FILTER (WHERE failure IS NULL) AS succeeded
            FROM attempts WHERE endpoint_id = d.endpoint_id AND seq = d.seq
        ) a
        WHERE a.n <> d.attempts OR d.status = 'delivered' AND a.succeeded = 0
        """,
    ),
)
