"""The kernel's first tables: the outbox and its cursor, the inbox, idempotency keys."""

from collections.abc import Sequence

from libs.common.messaging.envelope import MAX_EVENT_BYTES
from libs.common.tenancy import TENANT_IS_PRESENT, protect

SLOTS = 4


def kernel_v1(service: str) -> Sequence[str]:
    """The statements that a service's first migration runs."""
    app, relay, owner = f"{service}_app", f"{service}_relay", f"{service}_owner"
    return [
        f"GRANT USAGE ON SCHEMA public TO {app}, {relay}",
        *_outbox(app, relay, owner),
        *_inbox(app),
        *_idempotency(app, relay),
    ]


def _outbox(app: str, relay: str, owner: str) -> Sequence[str]:
    return [
        "CREATE SEQUENCE outbox_event_id_seq CACHE 1",  # a larger cache would break the order of a key across sessions
        f"""CREATE TABLE outbox_event (
            txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            id bigint NOT NULL DEFAULT nextval('outbox_event_id_seq'),
            event_id uuid NOT NULL,
            tenant_id uuid NOT NULL,
            slot smallint NOT NULL DEFAULT ((extract(epoch FROM now())::bigint / 3600) % {SLOTS})::smallint,
            topic text NOT NULL,
            key bytea NOT NULL,
            headers bytea NOT NULL,
            payload bytea NOT NULL,
            CONSTRAINT outbox_event_fits_the_broker CHECK (octet_length(headers) + octet_length(payload) <= {MAX_EVENT_BYTES})
        ) PARTITION BY LIST (slot)""",
        *(f"CREATE TABLE outbox_event_{slot} PARTITION OF outbox_event FOR VALUES IN ({slot})" for slot in range(SLOTS)),
        "CREATE INDEX outbox_event_position ON outbox_event (txid, id)",
        """CREATE TABLE outbox_cursor (
            is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
            timeline bigint NOT NULL DEFAULT 0,
            win bigint NOT NULL DEFAULT 0,
            lo pg_snapshot NOT NULL DEFAULT '1:1:',
            hi pg_snapshot,
            last_n bigint NOT NULL DEFAULT 0,
            owner text,
            lease_until timestamptz
        ) WITH (fillfactor = 50)""",
        "INSERT INTO outbox_cursor DEFAULT VALUES",
        "ALTER TABLE outbox_event ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE outbox_event FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant_is_present ON outbox_event FOR INSERT TO {app} WITH CHECK ({TENANT_IS_PRESENT})",
        # The truncating function runs as the owner: under forced security without this policy it would see no row left.
        f"CREATE POLICY relay_reads_all ON outbox_event FOR SELECT TO {relay}, {owner} USING (true)",
        f"GRANT INSERT ON outbox_event TO {app}",
        f"GRANT USAGE ON SEQUENCE outbox_event_id_seq TO {app}",
        f"GRANT SELECT ON outbox_event TO {relay}",
        f"GRANT SELECT, UPDATE ON outbox_cursor TO {relay}",
        _TRUNCATE,
        "REVOKE ALL ON FUNCTION outbox_truncate(smallint) FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION outbox_truncate(smallint) TO {relay}",
    ]


_TRUNCATE = """CREATE FUNCTION outbox_truncate(which smallint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM outbox_event WHERE slot = which LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    EXECUTE format('LOCK TABLE outbox_event_%s IN ACCESS EXCLUSIVE MODE', which);
    PERFORM 1 FROM outbox_event WHERE slot = which
        AND NOT pg_visible_in_snapshot(txid, (SELECT lo FROM outbox_cursor)) LIMIT 1;
    IF FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('TRUNCATE outbox_event_%s', which);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$"""


def _inbox(app: str) -> Sequence[str]:
    return [
        """CREATE TABLE inbox_position (
            consumer text NOT NULL,
            topic text NOT NULL,
            part int NOT NULL,
            next_offset bigint NOT NULL,
            watermarks jsonb NOT NULL DEFAULT '{}',
            PRIMARY KEY (consumer, topic, part)
        ) WITH (fillfactor = 50)""",
        """CREATE TABLE inbox_parked (
            consumer text NOT NULL,
            topic text NOT NULL,
            part int NOT NULL,
            off bigint NOT NULL,
            key bytea,
            headers bytea NOT NULL,
            payload bytea,
            state text NOT NULL CHECK (state IN ('rejected', 'parked', 'queued')),
            reason text NOT NULL,
            detail text NOT NULL,
            parked_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (consumer, topic, part, off)
        )""",
        "CREATE INDEX inbox_parked_key ON inbox_parked (consumer, topic, key) WHERE state <> 'rejected'",
        f"GRANT SELECT, INSERT, UPDATE ON inbox_position TO {app}",
        f"GRANT SELECT, INSERT, UPDATE ON inbox_parked TO {app}",
    ]


def _idempotency(app: str, relay: str) -> Sequence[str]:
    return [
        """CREATE TABLE idempotency_key (
            tenant_id uuid NOT NULL,
            subject text NOT NULL,
            operation text NOT NULL,
            key text NOT NULL,
            fingerprint bytea NOT NULL,
            status smallint,
            headers jsonb,
            body bytea,
            claimed_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant_id, subject, operation, key)
        )""",
        "CREATE INDEX idempotency_key_age ON idempotency_key USING brin (claimed_at)",
        *protect("idempotency_key", app, privileges="SELECT, INSERT, UPDATE"),
        f"CREATE POLICY relay_expires ON idempotency_key TO {relay} USING (claimed_at < now() - interval '72 hours')",
        f"GRANT SELECT, DELETE ON idempotency_key TO {relay}",
    ]
