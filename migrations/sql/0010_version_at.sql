-- The version that an account had at a time: that of its last entry until then; 0: it had none.
-- `at` never decreases along an account's versions, so a binary search over the primary key finds it, in some twenty
-- look-ups for a million entries, and no index on `at` has to be paid for by every command.
CREATE FUNCTION version_at(of_account bigint, until timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := 0;
    high bigint;
    middle bigint;
    middle_at timestamptz;
BEGIN
    SELECT version INTO high FROM entries WHERE account_id = of_account ORDER BY version DESC LIMIT 1;
    high := COALESCE(high, 0);
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        SELECT at INTO middle_at FROM entries WHERE account_id = of_account AND version = middle;
        IF middle_at <= until THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;
