"""Webhooks: every outcome that owes a delivery has its row, and every row tells of something."""

from ledger.audit.invariant import Invariant

WEBHOOKS = (
    Invariant(
        7,
        "every outcome that an endpoint is owed has its delivery, and each delivery is as its attempts left it",
        "SELECT count(*) FROM deliveries",
        # An endpoint is owed what was decided since it last chose what it wants (ledger.endpoints), and is not purged.
        """
        SELECT o.seq, e.id AS endpoint_id, 'it is owed, and has no delivery' AS what
        FROM webhook_endpoints e
        JOIN outcomes o ON o.position > e.owed_after JOIN commands c ON c.seq = o.seq AND c.tenant_id = e.tenant_id
        WHERE e.status = 'enabled'
          AND (e.event_types IS NULL OR e.event_types @> ARRAY[
              CASE WHEN o.code = 'expired' THEN 'command.expired' ELSE 'command.' || o.status END])
          AND (e.wallets IS NULL OR c.wallet = ANY(e.wallets) OR c.to_wallet = ANY(e.wallets))
          AND NOT EXISTS (SELECT FROM deliveries d WHERE d.endpoint_id = e.id AND d.seq = o.seq)
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
