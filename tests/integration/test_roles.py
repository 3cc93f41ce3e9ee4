"""What the role that serves requests can do to everybody at once, and where else on the server it gets in: nothing, nowhere."""

from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from deploy.local.databases import LIMITS, Role, role_password
from tests.shared.callers import edge, onboard, sell
from tests.shared.places import Place, Places

ROWS = "SELECT tenant_id, sku FROM product ORDER BY 1, 2"
COPY = "INSERT INTO product_rebuild SELECT * FROM product"


async def test_no_swap_takes_from_a_tenant_all_its_products(empty: Places) -> None:
    place = empty("cart")
    async with edge(place) as (_, shell):
        tenants = [await onboard(shell) for _ in range(3)]
        for tenant_id in tenants:
            await sell(shell, tenant_id, "tea", 100)
            await sell(shell, tenant_id, "mug", 100)
        admin = await place.as_admin()
        before = await admin.fetch(ROWS)
        app = await asyncpg.connect(place.url("app"))
        for beside in ("SELECT", f"{COPY} WHERE tenant_id <> '{tenants[0]}'", f"{COPY} WHERE sku = 'x'"):
            await app.execute("SELECT product_rebuild_begin()")
            await admin.execute(beside)
            with pytest.raises(asyncpg.RaiseError, match="would lose"):
                await app.fetchrow("SELECT * FROM product_rebuild_swap()")
            assert await admin.fetch(ROWS) == before
        await app.execute("SELECT product_rebuild_begin()")
        await admin.execute(COPY)
        await admin.execute("UPDATE product_rebuild SET name = 'rebuilt' WHERE sku = 'tea'")
        swap = await app.fetchrow("SELECT * FROM product_rebuild_swap()")
        assert (swap["row_count"], swap["before"] != swap["after"]) == (6, True)
        assert await admin.fetchval("SELECT count(*) FROM product WHERE name = 'rebuilt'") == 3
        await app.close()
        await admin.close()


async def _refusal(place: Place, role: str, database: str) -> str:
    url = urlsplit(place.url("app" if role == "app" else "relay"))._replace(path=f"/{database}").geturl()
    try:
        connection = await asyncpg.connect(url)
    except asyncpg.PostgresError as error:
        return type(error).__name__
    await connection.close()
    return "in"


@pytest.mark.parametrize("role", ["app", "relay"])
async def test_a_role_gets_into_its_own_database_alone_and_makes_nothing_there(shared: Places, role: str) -> None:
    place, other = shared("cart"), shared("checkout")
    for database in ("postgres", "template1", other.name):
        assert await _refusal(place, role, database) == "InsufficientPrivilegeError", database
    connection = await asyncpg.connect(place.url("app" if role == "app" else "relay"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DO $$ BEGIN PERFORM 1; END $$")
    for making in ("TABLE t (n int)", "TEMP TABLE t (n int)", "SCHEMA s", "FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"CREATE {making}")
    await connection.close()


@pytest.mark.parametrize(("role", "limited"), [("app", True), ("relay", True), ("owner", False)])
async def test_no_statement_and_no_lock_of_a_role_that_serves_lasts_for_ever(shared: Places, role: Role, limited: bool) -> None:
    connection = await asyncpg.connect(shared("cart").url(role))
    found = {name: await connection.fetchval(f"SHOW {name}") for name in LIMITS}
    await connection.close()
    set_for_role = {"statement_timeout": "1min", "lock_timeout": "30s", "idle_in_transaction_session_timeout": "1min"}
    assert found == (set_for_role if limited else dict.fromkeys(LIMITS, "0"))


async def test_only_who_may_change_or_delete_rows_may_lock_their_table(shared: Places) -> None:
    app = await asyncpg.connect(shared("payments").url("app"))
    for table in ("outbox_event", "outbox_parked", "alembic_version"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with app.transaction():
                await app.execute(f"LOCK TABLE {table} IN SHARE MODE")
    await app.close()


@pytest.mark.parametrize("password", ["", ":short"])
def test_no_password_of_a_role_is_made_of_what_others_know_or_guess(
    password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = f"postgresql://postgres{password}@127.0.0.1:5432/postgres"
    made = []
    for home in ("one", "one", "other"):
        monkeypatch.setenv("CARTWRIGHT_HOME", str(tmp_path / home))
        made.append(role_password(server, "cart_app"))
    assert made[0] == made[1] != made[2]
    assert (tmp_path / "one" / "secrets" / "database-roles").stat().st_mode & 0o777 == 0o600
