"""The kernel's second step: shorter slots, events that the broker refused, foreign message ids, repairs."""

from collections.abc import Sequence

from libs.common.messaging.schema.v1 import SLOTS

SLOT_SECONDS = 600
"""A slot is emptied in one go, so the outbox keeps about two and a half slots of what is already published."""


def kernel_v2(service: str, *, slot_seconds: int = SLOT_SECONDS) -> Sequence[str]:
    """The kernel's second migration: expand only, so that processes of both versions run on it."""
    app, relay, owner = f"{service}_app", f"{service}_relay", f"{service}_owner"
    return [
        *_rotation(relay, slot_seconds),
        *_parked(relay, owner),
        *_message_ids(app),
        *_repairs(app, relay),
    ]


def _rotation(relay: str, slot_seconds: int) -> Sequence[str]:
    """Shorter slots. Rows of the hourly ones lie in the same four and leave with them."""
    return [
        f"""ALTER TABLE ONLY outbox_event ALTER COLUMN slot
            SET DEFAULT ((extract(epoch FROM now())::bigint / {slot_seconds}) % {SLOTS})::smallint""",
        _TRUNCATE_BY_INDEX,
        f"""CREATE FUNCTION outbox_rotate(OUT emptied smallint, OUT slot_seconds int)
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        DECLARE
            this smallint := (extract(epoch FROM now())::bigint / {slot_seconds}) % {SLOTS};
        BEGIN
            slot_seconds := {slot_seconds};
            -- Neither this slot nor the last one, in which transactions may still be writing.
            SELECT count(*) FILTER (WHERE outbox_truncate(which::smallint)) INTO emptied
            FROM generate_series(0, {SLOTS - 1}) AS which WHERE which NOT IN (this, (this + {SLOTS - 1}) % {SLOTS});
        END $$""",  # noqa: S608 - numbers of our own
        "REVOKE ALL ON FUNCTION outbox_rotate() FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION outbox_rotate() TO {relay}",
    ]


# Two probes of the index instead of a look at every row, first without the lock and then under it.
_TRUNCATE_BY_INDEX = """CREATE OR REPLACE FUNCTION outbox_truncate(which smallint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    slot_table text := format('outbox_event_%s', which);
    published pg_snapshot;
    filled boolean;
    unpublished boolean;
    probe text := format('SELECT EXISTS (SELECT FROM %1$I WHERE txid >= pg_snapshot_xmax($1))
        OR EXISTS (SELECT FROM %1$I WHERE txid = ANY (ARRAY(SELECT pg_snapshot_xip($1))))', slot_table);
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', slot_table) INTO filled;
    IF NOT filled THEN
        RETURN false;
    END IF;
    SELECT lo INTO published FROM outbox_cursor;
    EXECUTE probe INTO unpublished USING published;
    IF unpublished THEN
        RETURN false;
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', slot_table);
    EXECUTE probe INTO unpublished USING published;
    IF unpublished THEN
        RETURN false;
    END IF;
    EXECUTE format('TRUNCATE %I', slot_table);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$"""


def _parked(relay: str, owner: str) -> Sequence[str]:
    """Events the broker refused, each with the later ones of its key. The app's role has no business with them."""
    return [
        """CREATE TABLE outbox_parked (
            timeline bigint NOT NULL,
            win bigint NOT NULL,
            n bigint NOT NULL,
            id bigint NOT NULL,
            event_id uuid NOT NULL,
            tenant_id uuid NOT NULL,
            topic text NOT NULL,
            key bytea NOT NULL,
            headers bytea NOT NULL,
            payload bytea NOT NULL,
            state text NOT NULL DEFAULT 'parked'
                CONSTRAINT outbox_parked_state CHECK (state IN ('parked', 'replaying', 'replayed', 'discarding', 'discarded')),
            reason text NOT NULL,
            detail text NOT NULL,
            parked_at timestamptz NOT NULL DEFAULT now(),
            decided_at timestamptz,
            decided_by text,
            decision text,
            CONSTRAINT outbox_parked_pkey PRIMARY KEY (timeline, win, n)
        )""",
        "CREATE INDEX outbox_parked_key ON outbox_parked (topic, key, id) WHERE state IN ('parked', 'replaying', 'discarding')",
        "CREATE INDEX outbox_parked_asked ON outbox_parked (state) WHERE state IN ('replaying', 'discarding')",
        "ALTER TABLE outbox_parked ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE outbox_parked FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY relay_sets_aside ON outbox_parked TO {relay}, {owner} USING (true) WITH CHECK (true)",
        f"GRANT SELECT, INSERT, UPDATE ON outbox_parked TO {relay}",
        # The relay cannot write events. What it may do is have those it had read put back, by this function, unchanged.
        f"CREATE POLICY owner_puts_back ON outbox_event FOR INSERT TO {owner} WITH CHECK (true)",
        _SETTLE,
        "REVOKE ALL ON FUNCTION outbox_settle(text) FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION outbox_settle(text) TO {relay}",
    ]


# Between two windows everything before is published or parked, and what comes after is in neither. Events put back
# here keep their ids: they come before the later ones of their key, whether those wait already or not. A new id would
# put them behind.
_SETTLE = """CREATE FUNCTION outbox_settle(who text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    put_back bigint;
BEGIN
    -- A relay that has lost its lease must not: the one that holds it would not know which keys are free again.
    PERFORM FROM outbox_cursor WHERE hi IS NULL AND owner = who FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    UPDATE outbox_parked SET state = 'discarded' WHERE state = 'discarding';
    WITH freed AS (
        UPDATE outbox_parked p SET state = 'replayed'
        FROM (SELECT DISTINCT topic, key FROM outbox_parked WHERE state = 'replaying') w
        WHERE p.topic = w.topic AND p.key = w.key AND p.state IN ('parked', 'replaying')
        RETURNING p.id, p.event_id, p.tenant_id, p.topic, p.key, p.headers, p.payload
    )
    INSERT INTO outbox_event (id, event_id, tenant_id, topic, key, headers, payload) SELECT * FROM freed ORDER BY id;
    GET DIAGNOSTICS put_back = ROW_COUNT;
    RETURN put_back;
END $$"""


def _message_ids(app: str) -> Sequence[str]:
    """The ids of foreign publishers' messages, by day, so that they leave by the day."""
    return [
        """CREATE TABLE inbox_message (
            consumer text NOT NULL,
            source text NOT NULL,
            message_id text NOT NULL,
            day date NOT NULL,
            PRIMARY KEY (consumer, source, message_id, day)
        ) PARTITION BY RANGE (day)""",
        "CREATE TABLE inbox_message_default PARTITION OF inbox_message DEFAULT",
        f"GRANT SELECT, INSERT ON inbox_message TO {app}",
        _ROTATE_MESSAGE_IDS,
        "REVOKE ALL ON FUNCTION inbox_message_rotate(int) FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION inbox_message_rotate(int) TO {app}",
        "SELECT inbox_message_rotate(7)",
    ]


# One day at a time, each giving up rather than queueing on a lock, for the next call tries again. A day that already
# has rows in the default partition stays there, and leaves from there by its age.
_ROTATE_MESSAGE_IDS = """CREATE FUNCTION inbox_message_rotate(keep_days int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    today date := (now() AT TIME ZONE 'utc')::date;
    upon date;
    day_table text;
BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR upon IN SELECT today + ahead FROM generate_series(0, 2) AS ahead LOOP
        day_table := 'inbox_message_' || to_char(upon, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(day_table) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE %I PARTITION OF inbox_message FOR VALUES FROM (%L) TO (%L)', day_table, upon, upon + 1);
        EXCEPTION WHEN lock_not_available OR check_violation OR duplicate_table OR unique_violation THEN
            NULL;
        END;
    END LOOP;
    FOR day_table IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'inbox_message'::regclass AND relname ~ '^inbox_message_[0-9]{8}$'
            AND to_date(right(relname, 8), 'YYYYMMDD') < today - keep_days
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE %I', day_table);
        EXCEPTION WHEN lock_not_available OR undefined_table THEN
            NULL;
        END;
    END LOOP;
    DELETE FROM inbox_message_default WHERE day < today - keep_days;
END $$"""


def _repairs(app: str, relay: str) -> Sequence[str]:
    """What an operator needs to decide about parked messages, and the record of what was decided."""
    return [
        """ALTER TABLE inbox_parked
            ADD COLUMN tenant_id uuid,
            ADD COLUMN type text,
            ADD COLUMN attempts int NOT NULL DEFAULT 0,
            ADD COLUMN decided_at timestamptz,
            ADD COLUMN decided_by text,
            ADD COLUMN decision text,
            DROP CONSTRAINT inbox_parked_state_check,
            ADD CONSTRAINT inbox_parked_state_check
                CHECK (state IN ('rejected', 'parked', 'queued', 'replayed', 'discarded'))""",
        "DROP INDEX inbox_parked_key",
        "CREATE INDEX inbox_parked_key ON inbox_parked (consumer, topic, key) WHERE state IN ('parked', 'queued')",
        """CREATE TABLE operator_action (
            id uuid PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT now(),
            actor text NOT NULL,
            action text NOT NULL,
            target text NOT NULL,
            reason text NOT NULL
        )""",
        # The relay's role too: what is decided about parked events is recorded in the same transaction.
        f"GRANT SELECT, INSERT ON operator_action TO {app}, {relay}",
    ]
