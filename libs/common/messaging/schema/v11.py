"""The kernel's eleventh step: tenants that are erased (ADR 0036)."""

from collections.abc import Sequence

from libs.common.messaging.schema.v5 import PLATFORM_IS_PRESENT
from libs.common.tenancy import TENANT_IS_PRESENT

FUNCTIONS = (
    "tenants_to_erase()",
    "erasure_seal(uuid)",
    "erasure_outbox_waits(uuid)",
    "erasure_tell(uuid, bigint, text)",
    "erase_rows(uuid, text, int)",
    "erasure_lock(uuid)",
    "erasure_finish(uuid)",
)
KERNEL_TABLES = ("idempotency_key", "inbox_parked", "inbox_source", "inbox_source_range", "outbox_parked", "outbox_event")
"""What the kernel keeps of tenants, and they take along. The audit trail stays."""


def kernel_v11(service: str) -> Sequence[str]:
    """Expand only. A tenant's row in `erasure` is its door: sealed, nothing of it is made here any more, and nothing is heard.

    The app's role seals, deletes and ends by functions of the owner alone, each of which looks first how far it has come: of a
    tenant that lives they do nothing but refuse.
    """
    app, owner = f"{service}_app", f"{service}_owner"
    reached = f"({TENANT_IS_PRESENT} OR {PLATFORM_IS_PRESENT})"
    return [
        _ERASURE,
        "ALTER TABLE erasure ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE erasure FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant_or_platform ON erasure TO {app} USING ({reached}) WITH CHECK ({reached})",
        f"CREATE POLICY owner_erases ON erasure TO {owner} USING ({TENANT_IS_PRESENT}) WITH CHECK ({TENANT_IS_PRESENT})",
        f"GRANT SELECT ON erasure TO {app}",
        *_STEPS,
        f"REVOKE ALL ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {', '.join(FUNCTIONS)} TO {app}",
        *erasable(service, *KERNEL_TABLES),
    ]


def erasable(service: str, *tables: str) -> Sequence[str]:
    """What lets the owner's function delete an erased tenant's rows of these tables, and lets it find whom to erase."""
    owner = f"{service}_owner"
    told = "SELECT e.tenant_id FROM erasure e WHERE e.sha256 IS NOT NULL AND e.erased_at IS NULL"
    found = f"CREATE POLICY owner_finds_erasing ON tenant FOR SELECT TO {owner} USING (status IN ('settling', 'erasing'))"
    return [
        *(
            f"CREATE POLICY owner_erases ON {table} TO {owner} USING (tenant_id IN ({told})) WITH CHECK (false)"
            for table in tables
        ),
        *([found] if "tenant" in tables else []),
    ]


_ERASURE = """CREATE TABLE erasure (
    tenant_id uuid NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT now(),
    row_count bigint,
    sha256 text,
    erased_at timestamptz,
    CONSTRAINT erasure_pkey PRIMARY KEY (tenant_id),
    CONSTRAINT erasure_told CHECK ((sha256 IS NULL) = (row_count IS NULL)),
    CONSTRAINT erasure_ended CHECK (erased_at IS NULL OR sha256 IS NOT NULL)
)"""

_TO_ERASE = """CREATE FUNCTION tenants_to_erase() RETURNS TABLE (tenant_id uuid, status text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT t.tenant_id, t.status FROM tenant t WHERE t.status IN ('settling', 'erasing') ORDER BY t.tenant_id;
END $$"""

_SEAL = """CREATE FUNCTION erasure_seal(whose uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM tenant t WHERE t.tenant_id = whose AND t.status = 'erasing';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'tenant % is not to be erased', whose USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO erasure (tenant_id) VALUES (whose) ON CONFLICT DO NOTHING;
END $$"""

# What the relay has published is what both its snapshots have seen. What it had to set aside is not published yet.
_OUTBOX_WAITS = """CREATE FUNCTION erasure_outbox_waits(whose uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT FROM outbox_event o WHERE o.tenant_id = whose
            AND NOT pg_visible_in_snapshot(o.txid, (SELECT lo FROM outbox_cursor)))
        OR EXISTS (SELECT FROM outbox_parked p WHERE p.tenant_id = whose AND p.state NOT IN ('replayed', 'discarded'));
END $$"""

# The first word counts: whoever reads later may have read what is deleted already.
_TELL = """CREATE FUNCTION erasure_tell(whose uuid, how_many bigint, digest text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE erasure SET row_count = how_many, sha256 = digest WHERE tenant_id = whose AND sha256 IS NULL
$$"""

# A table without the policy would look empty, and stay full: it is refused. One that is not there, as timers may, is empty. Of
# the outbox only what is published may go, for the relay counts what is in its window; and all at once, for a row's place says
# nothing across partitions.
_ROWS = """CREATE FUNCTION erase_rows(whose uuid, which text, how_many int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    gone bigint;
    is_over boolean;
BEGIN
    SELECT e.erased_at IS NOT NULL INTO is_over FROM erasure e WHERE e.tenant_id = whose AND e.sha256 IS NOT NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'tenant % is not being erased', whose USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF is_over OR to_regclass(format('public.%I', which)) IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM FROM pg_policies p WHERE p.schemaname = 'public' AND p.tablename = which AND p.policyname = 'owner_erases';
    IF NOT FOUND OR which = 'erasure' THEN
        RAISE EXCEPTION 'rows of % are not erasable', which USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF which = 'outbox_event' THEN
        DELETE FROM outbox_event o WHERE o.tenant_id = whose AND pg_visible_in_snapshot(o.txid, (SELECT lo FROM outbox_cursor));
    ELSE
        EXECUTE format('DELETE FROM %1$I WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$I WHERE tenant_id = $1 LIMIT $2))', which)
            USING whose, how_many;
    END IF;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$"""

# Of several workers one comes to the end. Whoever waited for that finds it over.
_LOCK = """CREATE FUNCTION erasure_lock(whose uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM erasure e WHERE e.tenant_id = whose AND e.sha256 IS NOT NULL AND e.erased_at IS NULL FOR UPDATE;
    RETURN FOUND;
END $$"""

_FINISH = """CREATE FUNCTION erasure_finish(whose uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE erasure SET erased_at = now() WHERE tenant_id = whose AND sha256 IS NOT NULL AND erased_at IS NULL
$$"""

_STEPS = (_TO_ERASE, _SEAL, _OUTBOX_WAITS, _TELL, _ROWS, _LOCK, _FINISH)
