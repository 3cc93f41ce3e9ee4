"""The order's story: what happened, event by event; and the table beside it, into which it is read again."""

from alembic import op

from libs.common.tenancy import protect

revision = "0005"
down_revision = "0004"

TABLE = """CREATE TABLE timeline_entry (
    tenant_id uuid NOT NULL,
    id text NOT NULL,
    story_id uuid NOT NULL,
    at timestamptz NOT NULL,
    service text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    cause text NOT NULL,
    duration_ms integer,
    trace_id text,
    actor text NOT NULL,
    details jsonb NOT NULL,
    CONSTRAINT timeline_entry_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT timeline_entry_kind CHECK (kind IN ('event', 'provider-call')),
    CONSTRAINT timeline_entry_duration CHECK ((kind = 'provider-call') = (duration_ms IS NOT NULL))
)"""

# A story is kept for longer than its topics are, so what a rebuild finds is put in the place of the same entries and of no
# others. Owner and all: the app itself can neither change nor delete what happened.
REBUILD = (
    "CREATE TABLE timeline_entry_rebuild (LIKE timeline_entry INCLUDING ALL)",
    "CREATE POLICY owner_swaps ON timeline_entry TO checkout_owner USING (true) WITH CHECK (true)",
    "CREATE POLICY owner_swaps ON timeline_entry_rebuild TO checkout_owner USING (true) WITH CHECK (true)",
    """CREATE FUNCTION timeline_entry_rebuild_begin() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS 'TRUNCATE timeline_entry_rebuild'""",
    """CREATE FUNCTION timeline_entry_rebuild_swap(OUT before text, OUT after text, OUT row_count bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        SELECT md5(coalesce(string_agg(md5(t::text), '' ORDER BY t.tenant_id, t.id), '')) INTO before
        FROM timeline_entry t JOIN timeline_entry_rebuild r USING (tenant_id, id);
        SELECT md5(coalesce(string_agg(md5(r::text), '' ORDER BY r.tenant_id, r.id), '')), count(*) INTO after, row_count
        FROM timeline_entry_rebuild r;
        IF before <> after THEN
            DELETE FROM timeline_entry t USING timeline_entry_rebuild r WHERE t.tenant_id = r.tenant_id AND t.id = r.id;
            INSERT INTO timeline_entry SELECT * FROM timeline_entry_rebuild;
        END IF;
    END $$""",
    "REVOKE ALL ON FUNCTION timeline_entry_rebuild_begin(), timeline_entry_rebuild_swap() FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION timeline_entry_rebuild_begin(), timeline_entry_rebuild_swap() TO checkout_app",
)


def upgrade() -> None:
    """Expand only."""
    for statement in (TABLE, "CREATE INDEX timeline_entry_of_story ON timeline_entry (tenant_id, story_id)", *REBUILD):
        op.execute(statement)
    for table in ("timeline_entry", "timeline_entry_rebuild"):
        for statement in protect(table, "checkout_app", privileges="SELECT, INSERT"):
            op.execute(statement)
