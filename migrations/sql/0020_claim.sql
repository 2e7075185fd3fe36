-- Claim up to max_rows pending commands for one drain, from the partitions in the order in which they are given. A group
-- (a row of size 2 or more) is claimed whole, so that a drain has at most one group more than max_rows.
--
-- What was drained lately lies dead before what is pending, and each look at a partition passes over it. So the
-- partitions are looked at one by one, by a cursor, and no further than the batch needs; by turns, which the caller
-- takes care of, instead of the longest wait first, which takes a look at all of them.
--
-- A partition is locked until the transaction ends, and only when something is pending in it: a look that finds
-- nothing takes no lock, so no doorbell can be turned away by a drain that is about to end.
-- The statements behind the lock see what was committed before they began (READ COMMITTED), so the DELETE cannot see a
-- row that the lock's last holder has drained. The look may be older: what it finds gone is told as locked in vain.
-- The rows are deleted, not marked: the outcome is written in the same transaction, and a rollback restores them.
--
-- No rows: nothing is pending. A row with a NULL seq: something is, and either another drain holds it (`locked` false)
-- and will look again after, or it was locked here in vain, emptied between the look and the lock (`locked` true),
-- so that this caller must look again: a doorbell may have been turned away meanwhile.
CREATE FUNCTION claim_pending(serve smallint[], max_rows integer, lock_space integer)
RETURNS TABLE (seq bigint, size smallint, locked boolean) LANGUAGE plpgsql ROWS 500 AS $$
DECLARE
    waiting CURSOR FOR
        SELECT p AS partition FROM unnest(serve) AS p
        CROSS JOIN LATERAL (SELECT FROM pending q WHERE q.partition = p ORDER BY q.seq LIMIT 1) AS oldest;
    wanted integer := max_rows;
    taken bigint[];
    got integer;
    deleted integer;
BEGIN
    FOR candidate IN waiting LOOP
        IF NOT pg_try_advisory_xact_lock(lock_space, candidate.partition) THEN
            RETURN QUERY SELECT NULL::bigint, NULL::smallint, false;
            CONTINUE;
        END IF;
        -- `before`: the commands in front of this row. The window is over `wanted` rows at the most.
        SELECT array_agg(f.seq), sum(f.size) INTO taken, got FROM (
            SELECT q.seq, q.size, sum(q.size) OVER (ORDER BY q.seq) - q.size AS before
            FROM (
                SELECT p.seq, p.size FROM pending p WHERE p.partition = candidate.partition ORDER BY p.seq LIMIT wanted
            ) q
        ) f WHERE f.before < wanted;
        RETURN QUERY
            DELETE FROM pending d WHERE d.partition = candidate.partition AND d.seq = ANY (taken)
            RETURNING d.seq, d.size, true;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        IF deleted = 0 THEN
            RETURN QUERY SELECT NULL::bigint, NULL::smallint, true;
        END IF;
        wanted := wanted - COALESCE(got, 0);
        EXIT WHEN wanted <= 0;
    END LOOP;
END
$$;
