"""The kernel's tenth step: the audit trail (ADR 0032)."""

from collections.abc import Sequence

from libs.common.tenancy import TENANT_IS_PRESENT, protect

SIGNATURE = (
    "audit_append(uuid[], text[], text[], text[], text[], text[], boolean[], text[], text[], text[], text[], bytea[], bytea[])"
)


def kernel_v10(service: str) -> Sequence[str]:
    """Expand only. `operator_action` stays for processes of the version before, and is read along.

    No process writes the trail but by one function, which chains what it is told to what is there; the owner neither changes
    nor deletes what stands. Whoever rules the server can, and is found out: each entry vouches for the one before.
    """
    app, relay, owner = f"{service}_app", f"{service}_relay", f"{service}_owner"
    return [
        _HEAD,
        _ENTRY,
        "CREATE INDEX audit_entry_of_platform ON audit_entry (at) WHERE by_platform",
        *protect("audit_entry", app, privileges="SELECT"),
        "ALTER TABLE audit_head ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE audit_head FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY owner_verifies ON audit_head FOR SELECT TO {owner} USING (true)",
        f"CREATE POLICY owner_verifies ON audit_entry FOR SELECT TO {owner} USING (true)",
        f"CREATE POLICY owner_begins ON audit_head FOR INSERT TO {owner} WITH CHECK ({TENANT_IS_PRESENT})",
        f"CREATE POLICY owner_moves ON audit_head FOR UPDATE TO {owner} USING ({TENANT_IS_PRESENT})",
        f"CREATE POLICY owner_appends ON audit_entry FOR INSERT TO {owner} WITH CHECK ({TENANT_IS_PRESENT})",
        _STANDS,
        """CREATE TRIGGER audit_entry_stands BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
            FOR EACH STATEMENT EXECUTE FUNCTION audit_stands()""",
        """CREATE TRIGGER audit_head_stands BEFORE DELETE OR TRUNCATE ON audit_head
            FOR EACH STATEMENT EXECUTE FUNCTION audit_stands()""",
        _APPEND,
        _OF_OPERATORS,
        _FORGET,
        f"REVOKE ALL ON FUNCTION audit_stands(), audit_of_operators(int), audit_forget(uuid), {SIGNATURE} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {app}, {relay}",
        f"GRANT EXECUTE ON FUNCTION audit_of_operators(int), audit_forget(uuid) TO {app}",
    ]


# The two keys are those of HMAC-SHA-256 (RFC 2104), a block each, already mixed with its constants.
_HEAD = """CREATE TABLE audit_head (
    tenant_id uuid NOT NULL,
    number bigint NOT NULL,
    digest bytea NOT NULL,
    inner_key bytea NOT NULL,
    outer_key bytea NOT NULL,
    CONSTRAINT audit_head_pkey PRIMARY KEY (tenant_id),
    CONSTRAINT audit_head_digest CHECK (octet_length(digest) = 32),
    CONSTRAINT audit_head_keys CHECK (octet_length(inner_key) = 64 AND octet_length(outer_key) = 64)
) WITH (fillfactor = 50)"""

_ENTRY = """CREATE TABLE audit_entry (
    tenant_id uuid NOT NULL,
    number bigint NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    client_id text NOT NULL,
    session_id text NOT NULL,
    address text NOT NULL,
    request_id text NOT NULL,
    by_platform boolean NOT NULL,
    action text NOT NULL,
    object_kind text NOT NULL,
    object_id text NOT NULL,
    reason text NOT NULL,
    state_before bytea,
    state_after bytea,
    previous bytea NOT NULL,
    digest bytea NOT NULL,
    CONSTRAINT audit_entry_pkey PRIMARY KEY (tenant_id, number),
    CONSTRAINT audit_entry_number CHECK (number > 0)
)"""

_STANDS = """CREATE FUNCTION audit_stands() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'what the audit trail tells is never changed'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'audit_stands';
END $$"""

# Heads are made and locked in the order of the tenants, as the last of a transaction: nobody waits in a circle. Under its lock
# a head's number has no gap and the time does not run backwards. States come whole and go no further than their digests.
_APPEND = """CREATE FUNCTION audit_append(
    tenants uuid[], actors text[], clients text[], sessions text[], addresses text[], requests text[], platforms boolean[],
    actions text[], kinds text[], objects text[], reasons text[], befores bytea[], afters bytea[]
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    act record;
    head audit_head;
    told audit_entry;
    word text;
    line bytea;
BEGIN
    WITH fresh AS MATERIALIZED (
        SELECT w.tenant_id, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
            || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) AS key
        FROM (SELECT DISTINCT unnest(tenants) AS tenant_id) AS w
        WHERE NOT EXISTS (SELECT FROM audit_head h WHERE h.tenant_id = w.tenant_id)
    )
    INSERT INTO audit_head (tenant_id, number, digest, inner_key, outer_key)
    SELECT f.tenant_id, 0, decode(repeat('00', 32), 'hex'),
        (SELECT string_agg(set_byte('\\x00'::bytea, 0, get_byte(f.key, i) # 54), ''::bytea ORDER BY i)
            FROM generate_series(0, 63) i),
        (SELECT string_agg(set_byte('\\x00'::bytea, 0, get_byte(f.key, i) # 92), ''::bytea ORDER BY i)
            FROM generate_series(0, 63) i)
    FROM fresh f ORDER BY f.tenant_id ON CONFLICT DO NOTHING;

    FOR act IN
        SELECT * FROM unnest(tenants, actors, clients, sessions, addresses, requests, platforms, actions, kinds, objects, reasons,
            befores, afters) WITH ORDINALITY AS w (tenant_id, actor, client_id, session_id, address, request_id, by_platform,
            action, object_kind, object_id, reason, state_before, state_after, place)
        ORDER BY w.tenant_id, w.place
    LOOP
        IF head.tenant_id IS DISTINCT FROM act.tenant_id THEN
            SELECT * INTO head FROM audit_head h WHERE h.tenant_id = act.tenant_id FOR UPDATE;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'this transaction is not in the name of tenant %', act.tenant_id
                    USING ERRCODE = 'insufficient_privilege';
            END IF;
        END IF;
        told := ROW(act.tenant_id, head.number + 1, clock_timestamp(), act.actor, act.client_id, act.session_id, act.address,
            act.request_id, act.by_platform, act.action, act.object_kind, act.object_id, act.reason,
            sha256(head.outer_key || sha256(head.inner_key || act.state_before)),
            sha256(head.outer_key || sha256(head.inner_key || act.state_after)), head.digest, NULL);
        line := uuid_send(told.tenant_id) || int8send(told.number) || int8send((extract(epoch FROM told.at) * 1000000)::bigint);
        FOREACH word IN ARRAY ARRAY[told.actor, told.client_id, told.session_id, told.address, told.request_id,
            told.by_platform::text, told.action, told.object_kind, told.object_id, told.reason,
            encode(told.state_before, 'hex'), encode(told.state_after, 'hex')]
        LOOP
            line := line || CASE WHEN word IS NULL THEN int4send(-1)
                ELSE int4send(octet_length(convert_to(word, 'UTF8'))) || convert_to(word, 'UTF8') END;
        END LOOP;
        told.digest := sha256(line || told.previous);
        INSERT INTO audit_entry SELECT told.*;
        head.number := told.number;
        head.digest := told.digest;
        UPDATE audit_head h SET number = told.number, digest = told.digest WHERE h.tenant_id = told.tenant_id;
    END LOOP;
END $$"""

_OF_OPERATORS = """CREATE FUNCTION audit_of_operators(how_many int)
RETURNS TABLE (id text, at timestamptz, actor text, action text, target text, reason text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT e.tenant_id || ':' || e.number, e.at, e.client_id, e.action, e.object_kind || ':' || e.object_id, e.reason
    FROM audit_entry e WHERE e.by_platform ORDER BY e.at DESC LIMIT how_many
$$"""

# What a tenant's trail says stays, and stays whole. Under keys that are gone no digest of a state can be guessed at any more.
_FORGET = """CREATE FUNCTION audit_forget(whose uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE audit_head h SET inner_key = fresh.inner_key, outer_key = fresh.outer_key FROM (SELECT
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
            || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) AS inner_key,
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
            || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) AS outer_key
    ) AS fresh WHERE h.tenant_id = whose
$$"""
