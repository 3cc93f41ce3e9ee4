"""The kernel's ninth step: the fence is locked first and looked through then, and by tenant."""

from collections.abc import Sequence


def kernel_v9(service: str) -> Sequence[str]:
    """Expand only."""
    signature = "inbox_fence(text, text[], int[], uuid[])"
    return [
        """CREATE INDEX inbox_parked_open ON inbox_parked (tenant_id, consumer, topic)
            WHERE state IN ('waiting', 'parked', 'queued')""",
        _FENCE,
        f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {signature} TO {service}_app",
    ]


# Two statements in one round trip. Whoever had the lock before us may have parked something, or paused a source; one
# statement would still see what there was before it waited. By tenant: what others have parked is not even looked at.
_FENCE = """CREATE FUNCTION inbox_fence(of_consumer text, topics text[], parts int[], tenant_ids uuid[])
RETURNS TABLE (topic text, part int, next_offset bigint, watermarks jsonb, has_parked boolean, has_paused boolean)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM inbox_position p JOIN unnest(topics, parts) AS w(topic, part) USING (topic, part)
    WHERE p.consumer = of_consumer ORDER BY p.topic, p.part FOR UPDATE OF p;
    RETURN QUERY SELECT p.topic, p.part, p.next_offset, p.watermarks,
        EXISTS (SELECT FROM inbox_parked k WHERE k.tenant_id = ANY (tenant_ids) AND k.consumer = of_consumer
            AND k.topic = ANY (topics) AND k.state IN ('waiting', 'parked', 'queued')),
        EXISTS (SELECT FROM inbox_source s WHERE s.consumer = of_consumer AND s.state <> 'live')
    FROM inbox_position p JOIN unnest(topics, parts) AS w(topic, part) USING (topic, part) WHERE p.consumer = of_consumer;
END $$"""
