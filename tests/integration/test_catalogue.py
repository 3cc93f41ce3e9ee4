"""What the migrated databases say of themselves: the second lock on tenants' data hangs on every door."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from alembic import command
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from deploy.local.databases import ROLES
from libs.common import database
from libs.common.database import alembic_config
from tests.shared.places import MIGRATED, Place, Places

WITHOUT_THE_TENANT = {
    ("cart", "cart_id_not_available"): "cart ids are the client's to choose, and one id means one cart",
    ("identity", "tenant_slug_taken"): "a slug names one tenant of all; only the platform makes tenants",
    ("payments", "provider_account_account_taken"): "an account that the platform acts for is one tenant's alone",
    **{(service, "inbox_parked_pkey"): "where a record lies in its topic" for service in MIGRATED},
    **{(service, "outbox_parked_pkey"): "where an event stood in the outbox" for service in MIGRATED},
}
"""The only keys that do not begin with the tenant."""

OPERATORS_ONLY = {
    "outbox_parked": "events the broker refused; the app's role has no access at all",
    "audit_head": "where each chain of the audit trail ends, with its keys: a function of the owner moves it",
}
"""Tables with a tenant's column that no request of a tenant ever reaches."""

SEES_ALL = {
    *((service, "inbox_parked", "owner_moves", f"{service}_owner") for service in MIGRATED),
    *((service, table, "owner_verifies", f"{service}_owner") for service in MIGRATED for table in ("audit_entry", "audit_head")),
    *((service, "outbox_event", "owner_puts_back", f"{service}_owner") for service in MIGRATED),
    *((service, "outbox_event", "relay_reads_all", f"{service}_owner,{service}_relay") for service in MIGRATED),
    *((service, "outbox_parked", "relay_sets_aside", f"{service}_owner,{service}_relay") for service in MIGRATED),
    ("cart", "product", "owner_swaps", "cart_owner"),
    ("cart", "product_rebuild", "owner_swaps", "cart_owner"),
    ("checkout", "timeline_entry", "owner_swaps", "checkout_owner"),
    ("checkout", "timeline_entry_rebuild", "owner_swaps", "checkout_owner"),
    ("identity", "epoch", "owner_tells_all", "identity_owner"),
    ("identity", "tenant", "owner_lists_all", "identity_owner"),
    ("payments", "provider_account", "owner_finds_wrapped", "payments_owner"),
    ("payments", "reconciliation", "owner_finds_due", "payments_owner"),
    ("payments", "tenant", "owner_finds_due", "payments_owner"),
}
"""The only policies that let everything through, and for whom. None is for the role that serves requests."""

DEFINER_FUNCTIONS: dict[str, str | None] = {
    "outbox_truncate": "relay",
    "outbox_rotate": "relay",
    "outbox_settle": "relay",
    "inbox_message_rotate": "app",
    "inbox_adopt": "app",
    "inbox_fence": "app",
    "inbox_heads": "app",
    "audit_append": "app relay",
    "audit_of_operators": "app",
    "audit_forget": "app",
    "audit_stands": None,
    "door_closes": None,
    "door_opens": None,
    "tenants_to_erase": "app",
    "erasure_seal": "app",
    "erasure_outbox_waits": "app",
    "erasure_tell": "app",
    "erase_rows": "app",
    "erasure_lock": "app",
    "erasure_finish": "app",
    "product_rebuild_begin": "app",
    "product_rebuild_swap": "app",
    "timeline_entry_rebuild_begin": "app",
    "timeline_entry_rebuild_swap": "app",
    "tenant_ids_for_platform": "app",
    "epochs_for_platform": "app",
    "operations_due": "app",
    "timers_due": "app",
    "timers_forget": "app",
    "declines_forget": "app",
    "drops_waiting": "app",
    "places_forget": "app",
    "operations_open": "app",
    "payments_due": "app",
    "payments_watched": "app",
    "refunds_due": "app",
    "orphan_money": "app",
    "orphan_money_age": "app",
    "webhook_events_due": "app",
    "webhook_events_waiting": "app",
    "webhook_events_forget": "app",
    "webhook_owners": "app",
    "provider_accounts_wrapped_otherwise": "app",
    "ledger_stands": None,
    "provider_account_is_one_tenants": None,
    "reconciliations_due": "app",
    "reconciliation_breaks_open": "app",
    "reconciliation_oldest_seconds": "app",
    "operations_unknown": "app",
    "reviews_waiting": "app",
    "reviews_counted": "app",
    "client_for_grant": "app",
    "api_key_for_grant": "app",
    "order_terms": None,
}
UNDER_THE_POLICIES = {"inbox_fence", "inbox_heads", "client_for_grant", "api_key_for_grant", "order_terms"}
"""Those among them that see what their caller sees."""
"""The functions that act as the owner, and which roles may call each. None: it is a trigger's."""


@pytest.fixture(params=MIGRATED)
def place(request: pytest.FixtureRequest, shared: Places) -> Place:
    return shared(request.param)


@pytest.fixture
async def admin(place: Place) -> AsyncIterator[asyncpg.Connection]:
    connection = await place.as_admin()
    yield connection
    await connection.close()


TABLES = """SELECT c.relname AS name, c.relrowsecurity AS secured, c.relforcerowsecurity AS forced, c.relispartition AS part,
    r.rolname AS owner, EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id') AS tenants
FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1"""


async def test_every_table_with_a_tenant_has_forced_security_and_no_partition_can_be_reached_around_it(
    place: Place, admin: asyncpg.Connection
) -> None:
    tables = await admin.fetch(TABLES)
    tenants = [table for table in tables if table["tenants"] and not table["part"]]
    assert len(tenants) > 3
    assert [table["name"] for table in tenants if not (table["secured"] and table["forced"])] == []
    for partition in (table["name"] for table in tables if table["part"]):
        granted = await admin.fetch(
            "SELECT grantee, privilege_type FROM information_schema.role_table_grants WHERE table_name = $1 AND grantee <> $2",
            partition,
            f"{place.service}_owner",
        )
        assert [tuple(row) for row in granted] == [], f"{partition} has no security of its own"


async def test_the_tables_without_a_tenant_are_those_that_the_code_gives_a_reason_for(admin: asyncpg.Connection) -> None:
    reasons = (database.__doc__ or "").partition("Tables without a tenant, and why:")[2]
    tables = [table for table in await admin.fetch(TABLES) if not table["part"]]
    without = {table["name"] for table in tables if not table["tenants"]}
    assert without == set(re.findall(r"`(\w+)`", reasons))


POLICIES = """SELECT tablename, policyname, permissive, array_to_string(roles, ',') AS roles, cmd, qual, with_check
FROM pg_policies WHERE schemaname = 'public' ORDER BY 1, 2"""


async def test_the_app_reads_and_writes_by_one_and_the_same_expression_and_no_policy_is_for_everybody(
    place: Place, admin: asyncpg.Connection
) -> None:
    policies = await admin.fetch(POLICIES)
    app = f"{place.service}_app"
    tables = [table for table in await admin.fetch(TABLES) if table["tenants"] and not table["part"]]
    names = {table["name"] for table in tables} - set(OPERATORS_ONLY)
    ours = [policy for policy in policies if app in policy["roles"].split(",")]
    assert {policy["tablename"] for policy in ours} == names
    for policy in ours:
        if policy["tablename"] == "inbox_parked":
            continue  # what names no tenant is the platform's alone: see test_walls
        assert policy["roles"] == app
        assert "tenant_ids" in policy["with_check"]
        if policy["tablename"] == "outbox_event":  # may be written and never read
            assert (policy["cmd"], policy["qual"]) == ("INSERT", None)
        else:
            assert (policy["cmd"], policy["qual"]) == ("ALL", policy["with_check"])
    assert [policy["policyname"] for policy in policies if "public" in policy["roles"].split(",")] == []
    unrestricted = {
        (place.service, policy["tablename"], policy["policyname"], ",".join(sorted(policy["roles"].split(","))))
        for policy in policies
        if "true" in {policy["qual"], policy["with_check"]}
    }
    assert unrestricted == {entry for entry in SEES_ALL if entry[0] == place.service}


async def test_no_policy_calls_a_volatile_function(admin: asyncpg.Connection) -> None:
    for policy in await admin.fetch(POLICIES):
        expression = f"{policy['qual'] or ''} {policy['with_check'] or ''}"
        for function in re.findall(r"(\w+)\s*\(", expression):
            volatility = await admin.fetch("SELECT provolatile::text AS kind FROM pg_proc WHERE proname = $1", function)
            assert "v" not in {row["kind"] for row in volatility}, f"{policy['tablename']}: {function}"


async def test_the_tenant_leads_every_key_of_a_tenant_table(place: Place, admin: asyncpg.Connection) -> None:
    leading = await admin.fetch(
        """SELECT i.relname AS name, a.attname AS first FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0]
        WHERE x.indisunique AND t.relnamespace = 'public'::regnamespace
            AND EXISTS (SELECT FROM pg_attribute b WHERE b.attrelid = t.oid AND b.attname = 'tenant_id')
        UNION ALL
        SELECT conname, a.attname FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE contype = 'f' AND connamespace = 'public'::regnamespace
        UNION ALL
        SELECT conname, a.attname FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = c.confkey[1]
        WHERE contype = 'f' AND connamespace = 'public'::regnamespace"""
    )
    assert leading
    without = {(place.service, key["name"]) for key in leading if key["first"] != "tenant_id"}
    assert without == {key for key in WITHOUT_THE_TENANT if key[0] == place.service}


async def test_the_app_and_the_relay_own_nothing_and_have_no_power_beyond_their_rows(
    place: Place, admin: asyncpg.Connection
) -> None:
    for role in (f"{place.service}_app", f"{place.service}_relay"):
        powers = await admin.fetchrow(
            """SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,
                EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid) AS belongs,
                EXISTS (SELECT FROM pg_class WHERE relowner = r.oid) OR EXISTS (SELECT FROM pg_proc WHERE proowner = r.oid)
                    OR EXISTS (SELECT FROM pg_namespace WHERE nspowner = r.oid) AS owns,
                has_schema_privilege(r.oid, 'public', 'CREATE') AS schema_create,
                has_database_privilege(r.oid, current_database(), 'CREATE') AS create_schema,
                has_database_privilege(r.oid, current_database(), 'TEMPORARY') AS temporary
            FROM pg_roles r WHERE rolname = $1""",
            role,
        )
        assert {power for power, has in powers.items() if has} == set()
        for table in await admin.fetch(TABLES):
            for privilege in ("TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"):
                assert not await admin.fetchval("SELECT has_table_privilege($1, $2::text, $3)", role, table["name"], privilege)
    assert {table["owner"] for table in await admin.fetch(TABLES)} == {f"{place.service}_owner"}


async def test_no_role_of_a_service_is_the_servers_master_and_only_the_owner_may_write_programs(
    place: Place, admin: asyncpg.Connection
) -> None:
    for role in ROLES:
        name = f"{place.service}_{role}"
        found = await admin.fetchrow(
            """SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication AS mighty,
                rolpassword LIKE 'SCRAM-SHA-256$%' AS scrambled,
                ARRAY(SELECT lanname::text FROM pg_language
                    WHERE lanpltrusted AND lanname <> 'sql' AND has_language_privilege($1, oid, 'USAGE')) AS languages
            FROM pg_authid WHERE rolname = $1""",
            name,
        )
        assert tuple(found) == (False, True, ["plpgsql"] if role == "owner" else []), name


async def test_nothing_reads_around_the_policies_but_the_owners_listed_functions(place: Place, admin: asyncpg.Connection) -> None:
    assert (
        await admin.fetch("SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace")
        == []
    )
    functions = await admin.fetch(
        """SELECT p.oid, proname, prosecdef, r.rolname AS owner, r.rolsuper AS super, proconfig::text AS settings
        FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner WHERE pronamespace = 'public'::regnamespace"""
    )
    for function in functions:
        assert function["prosecdef"] is (function["proname"] not in UNDER_THE_POLICIES), function["proname"]
        assert (function["owner"], function["super"]) == (f"{place.service}_owner", False)
        assert "search_path=public, pg_temp" in function["settings"]
        assert not await admin.fetchval("SELECT has_function_privilege('public', $1::oid, 'EXECUTE')", function["oid"])
        callers = {
            role
            for role in ("app", "relay")
            if await admin.fetchval(
                "SELECT has_function_privilege($1, $2::oid, 'EXECUTE')", f"{place.service}_{role}", function["oid"]
            )
        }
        assert callers == {*(DEFINER_FUNCTIONS[function["proname"]] or "").split()}


def test_alembic_finds_no_drift_between_the_tables_and_the_migrations(place: Place) -> None:
    command.check(alembic_config(place.service, place.url("owner")))


SHAPE = {
    "columns": """SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'""",
    "constraints": """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND contype <> 'n'""",  # NOT NULL is with the columns
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
}


@contextmanager
def _described(place: Place) -> Iterator[MetaData]:
    module: Any = __import__(f"services.{place.service}.tables", fromlist=["METADATA"])
    yield module.METADATA


async def test_the_described_tables_and_the_migrated_ones_have_the_same_constraints_and_indexes_too(
    place: Place, empty: Places, admin: asyncpg.Connection
) -> None:
    # Alembic compares no CHECK and no predicate of an index; so the described tables are made beside, and asked.
    described = empty(place.service)
    with _described(place) as metadata:
        names = set(metadata.tables)
        engine = create_async_engine(described.url("owner").replace("postgresql://", "postgresql+asyncpg://", 1))
        async with engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
            await connection.run_sync(metadata.create_all)
        await engine.dispose()
    other = await described.as_admin()
    try:
        for what, query in SHAPE.items():
            migrated = {tuple(row) for row in await admin.fetch(query) if row[0] in names}
            assert migrated == {tuple(row) for row in await other.fetch(query) if row[0] in names}, what
            assert migrated
    finally:
        await other.close()
