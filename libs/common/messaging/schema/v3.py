"""The kernel's third step: timers."""

from collections.abc import Sequence

from libs.common.tenancy import TENANT_IS_PRESENT, protect


def kernel_v3(service: str) -> Sequence[str]:
    """The kernel's third step, for services that wait for time: timers (`timers.py`)."""
    app, owner = f"{service}_app", f"{service}_owner"
    return [
        """CREATE TABLE timer (
            tenant_id uuid NOT NULL,
            name text NOT NULL,
            key uuid NOT NULL,
            due_at timestamptz NOT NULL,
            free_at timestamptz NOT NULL,
            CONSTRAINT timer_pkey PRIMARY KEY (tenant_id, name, key),
            CONSTRAINT timer_free_when_due CHECK (free_at >= due_at)
        ) WITH (fillfactor = 70)""",
        "CREATE INDEX timer_free_at ON timer (free_at)",
        *protect("timer", app, privileges="SELECT, INSERT, UPDATE"),
        # What is due belongs to no tenant in particular: a function of the owner tells its keys, and whoever asked claims
        # under the tenants' own security. Nobody deletes but by the other function, and that only what was due.
        f"CREATE POLICY owner_finds_due ON timer FOR SELECT TO {owner} USING (due_at <= now())",
        f"CREATE POLICY owner_forgets_fired ON timer FOR DELETE TO {owner} USING ({TENANT_IS_PRESENT} AND due_at <= now())",
        """CREATE FUNCTION timers_due(how_many integer)
        RETURNS TABLE (tenant_id uuid, name text, key uuid, due_at timestamptz)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
            SELECT t.tenant_id, t.name, t.key, t.due_at FROM timer t
            WHERE t.free_at <= now() ORDER BY t.free_at LIMIT how_many
        $$""",
        """CREATE FUNCTION timers_forget(tenants uuid[], names text[], keys uuid[], due timestamptz[]) RETURNS void
        LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
            DELETE FROM timer t USING unnest(tenants, names, keys, due) AS k(tenant_id, name, key, due_at)
            WHERE t.tenant_id = k.tenant_id AND t.name = k.name AND t.key = k.key AND t.due_at = k.due_at
        $$""",
        "REVOKE ALL ON FUNCTION timers_due(integer), timers_forget(uuid[], text[], uuid[], timestamptz[]) FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION timers_due(integer), timers_forget(uuid[], text[], uuid[], timestamptz[]) TO {app}",
    ]
