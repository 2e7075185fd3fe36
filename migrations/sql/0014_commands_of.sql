-- The first commands with a reference, and those whose metadata contain an object, by their index whatever the planner
-- knows: it would rather scan the table for what it takes to be common, and common is what it took the past to be.
CREATE FUNCTION commands_of_reference(of_tenant integer, wanted text, at_most integer) RETURNS SETOF bigint
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT seq FROM commands WHERE tenant_id = of_tenant AND reference = wanted LIMIT at_most
$$;
CREATE FUNCTION commands_of_metadata(of_tenant integer, wanted jsonb, at_most integer) RETURNS SETOF bigint
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT seq FROM commands WHERE tenant_id = of_tenant AND metadata @> wanted LIMIT at_most
$$;
