"""The kernel's seventh step: a stored position knows the log that it is a position of."""

from collections.abc import Sequence


def kernel_v7(service: str) -> Sequence[str]:
    """The statements: expand only. What was stored before learns its log at first sight."""
    app, owner = f"{service}_app", f"{service}_owner"
    signature = "inbox_adopt(text, text, int, bigint, bigint, uuid, int)"
    return [
        "ALTER TABLE inbox_position ADD COLUMN topic_id uuid, ADD COLUMN leader_epoch int",
        # Adopting concerns every tenant's parked messages at once, so a function of the owner does it, and nothing else.
        f"CREATE POLICY owner_moves ON inbox_parked TO {owner} USING (true) WITH CHECK (true)",
        _ADOPT,
        f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {signature} TO {app}",
    ]


# The offsets of the new log begin anew. What was parked out of the old one goes below all of them, in its order: it keeps
# its place before what follows of its key, and leaves its number to whatever is parked next.
_ADOPT = """CREATE FUNCTION inbox_adopt(
    of_consumer text, of_topic text, of_part int, known bigint, begins bigint, new_topic uuid, new_epoch int
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    down bigint;
BEGIN
    UPDATE inbox_position SET next_offset = begins, topic_id = new_topic, leader_epoch = new_epoch
    WHERE consumer = of_consumer AND topic = of_topic AND part = of_part AND next_offset = known;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT greatest(max(off), max(off) - min(off)) + 1 INTO down
    FROM inbox_parked WHERE consumer = of_consumer AND topic = of_topic AND part = of_part;
    UPDATE inbox_parked SET off = off - down WHERE consumer = of_consumer AND topic = of_topic AND part = of_part;
    RETURN true;
END $$"""
