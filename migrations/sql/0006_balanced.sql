-- Double entry, enforced where it is written: one statement writes a transfer's entries whole, and they sum to zero
-- per asset. A statement trigger over the transition table costs a microsecond an entry; a deferred constraint
-- trigger, which PostgreSQL can only fire row by row, costs ten (docs/decisions/0007-balanced-per-statement.md).
CREATE FUNCTION refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    broken record;
BEGIN
    SELECT seq, asset_id, sum(amount) AS total INTO broken
    FROM written GROUP BY seq, asset_id HAVING sum(amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer % does not balance: its entries in asset % sum to %',
            broken.seq, broken.asset_id, broken.total
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transfer_balances';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER balanced AFTER INSERT ON entries REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_unbalanced();
