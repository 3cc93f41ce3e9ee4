"""The kernel's ninth step: the fence is locked first and looked through then, and by tenant."""

from collections.abc import Sequence


def kernel_v9(service: str) -> Sequence[str]:
    """Expand only; the index that goes is replaced by one that no other can be taken for."""
    fence, heads = "inbox_fence(text, text[], int[], uuid[])", "inbox_heads(text, text[], bytea[])"
    return [
        """CREATE INDEX inbox_parked_open ON inbox_parked (tenant_id, consumer, topic)
            WHERE state IN ('waiting', 'parked', 'queued')""",
        """CREATE INDEX inbox_parked_line ON inbox_parked (key, consumer, topic)
            WHERE state IN ('waiting', 'parked', 'queued')""",
        "DROP INDEX inbox_parked_key",
        _FENCE,
        _HEADS,
        f"REVOKE ALL ON FUNCTION {fence}, {heads} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {fence}, {heads} TO {service}_app",
    ]


# Two statements in one round trip. Whoever had the lock before us may have parked something, or paused a source; one
# statement would still see what there was before it waited. By tenant: what others have parked is not even looked at.
_FENCE = """CREATE FUNCTION inbox_fence(of_consumer text, topics text[], parts int[], tenant_ids uuid[])
RETURNS TABLE (topic text, part int, next_offset bigint, watermarks jsonb, has_parked boolean, has_paused boolean)
LANGUAGE plpgsql SET search_path = public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM inbox_position p JOIN unnest(topics, parts) AS w(topic, part) USING (topic, part)
    WHERE p.consumer = of_consumer ORDER BY p.topic, p.part FOR UPDATE OF p;
    RETURN QUERY SELECT p.topic, p.part, p.next_offset, p.watermarks,
        EXISTS (SELECT FROM inbox_parked k WHERE k.tenant_id = ANY (tenant_ids) AND k.consumer || '' = of_consumer
            AND k.topic || '' = ANY (topics) AND k.state IN ('waiting', 'parked', 'queued')),
        EXISTS (SELECT FROM inbox_source s WHERE s.consumer = of_consumer AND s.state <> 'live')
    FROM inbox_position p JOIN unnest(topics, parts) AS w(topic, part) USING (topic, part) WHERE p.consumer = of_consumer;
END $$"""


# By each key itself, whatever the planner has heard of the table, which may have grown from nothing within a second: what
# is not to be found by an index (`|| ''`) leaves it that of the key alone. By that of the topic it would read everything.
_HEADS = """CREATE FUNCTION inbox_heads(of_consumer text, topics text[], keys bytea[])
RETURNS TABLE (topic text, key bytea, reason text) LANGUAGE plpgsql SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT w.topic, w.key, head.reason FROM unnest(topics, keys) AS w(topic, key) CROSS JOIN LATERAL (
        SELECT (array_agg(p.reason ORDER BY p.part, p.off))[1] AS reason FROM inbox_parked p
        WHERE p.key = w.key AND p.topic || '' = w.topic AND p.consumer || '' = of_consumer
            AND p.state IN ('waiting', 'parked', 'queued')
    ) head WHERE head.reason IS NOT NULL;
END $$"""
