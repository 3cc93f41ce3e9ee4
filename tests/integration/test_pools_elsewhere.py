"""A pool between services and PostgreSQL: Debian's pgbouncer, lending connections for a session or for a transaction."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from deploy.local.databases import ROLES, Role, role_password
from libs.common import tenancy
from libs.common.auth import CLIENT, PERMISSIONS, PLATFORM_OPERATOR
from libs.common.clock import PLATFORM
from libs.common.database import Database
from libs.common.database.wire import wire_of
from libs.common.errors import UnavailableError
from libs.common.settings import Settings, SettingsError
from services import SERVICES
from tests.integration.victims import SEEDS, Victim
from tests.shared.callers import Person, edge
from tests.shared.places import Place, Places
from tests.shared.roots import PUBLIC_ROOT
from tests.shared.servers import pgbouncer
from tests.shared.toy import SERVICE, Toy, command
from tests.shared.victims import parked, tenant_of

OPERATOR = Person(PLATFORM, role=PLATFORM_OPERATOR)
MODES = ("session", "transaction")
SETTING = f"SELECT current_setting('{tenancy.SETTING}', true) || $1"
"""Not a text alone: it is prepared, and has an argument."""


@dataclass(frozen=True)
class Pool:
    """Where it is, and how it lends."""

    port: int
    mode: str

    def through(self, url: str, pooling: str | None = None) -> str:
        """The same address, by way of the pool."""
        server = urlsplit(url)
        login = server.netloc.rpartition("@")[0]
        return server._replace(netloc=f"{login}@127.0.0.1:{self.port}", query=f"pooling={pooling or self.mode}").geturl()


@pytest.fixture
def pooled(admin_url: str, tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def before(mode: str, *services: str) -> AsyncIterator[Pool]:
        roles = [f"{service}_{role}" for service in services for role in ROLES]
        users = {role: role_password(admin_url, role) for role in roles}
        async with pgbouncer(urlsplit(admin_url).port or 5432, tmp_path, users, mode=mode) as port:
            yield Pool(port, mode)

    return before


@dataclass(frozen=True)
class PooledPlace(Place):
    """A service's database whose app role comes through a pool."""

    pool: Pool

    def url(self, role: Role) -> str:
        return self.pool.through(super().url(role)) if role == "app" else super().url(role)


async def _answers(place: Place) -> dict[str, int]:
    """What every operation of a service comes to for who may ask for all of them."""
    async with edge(place) as (client, shell), AsyncExitStack() as leaves:
        tenant_id = await tenant_of(shell, place.service)
        victim = Victim(place, client, shell, tenant_id, Person(tenant_id), {}, leaves)
        victim.ids |= await SEEDS[place.service](victim)
        victim.ids |= {"parked_id": await parked(place, tenant_id), "id": await parked(place, None)}
        everything = Person(tenant_id, role=CLIENT, scope=sorted(PERMISSIONS))
        found = {}
        for operation in victim.operations():
            who = OPERATOR if operation.path.startswith("/ops") or operation.route.platform_only else everything
            async with asyncio.timeout(120):
                answer = await victim.ask(operation, who)
            found[f"{operation.method} {operation.route.path}"] = answer.status_code
        found.pop("POST /v1/tenants", None)  # of that name there is one by the second time
        return found


@pytest.mark.parametrize("service", SERVICES)
async def test_every_operation_comes_to_the_same_through_a_pool_as_without_one(
    service: str, empty: Places, pooled: Callable[..., Any]
) -> None:
    place = empty(service)
    direct = await _answers(place)
    assert sum(status < 300 for status in direct.values()) > len(direct) / 3, direct
    for mode in MODES:
        async with pooled(mode, service) as pool:
            behind = PooledPlace(place.admin_url, place.service, place.prefix, pool)
            assert await _answers(behind) == direct, mode


class PooledToy(Toy):
    """The toy whose service comes through a pool; what needs a session goes past one that lends by the transaction."""

    pool: Pool

    def url(self, role: Any) -> str:
        direct = super().url(role)
        return self.pool.through(direct) if role == "app" or (role == "relay" and self.pool.mode == "session") else direct

    @property
    def listening_url(self) -> str:
        return self.url("app") if self.pool.mode == "session" else Toy.url(self, "app")


@pytest.mark.parametrize("mode", MODES)
async def test_behind_a_pool_all_that_is_written_is_published_and_applied_once(
    mode: str, admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str], pooled: Callable[..., Any]
) -> None:
    toy = PooledToy(admin_url, bootstrap_servers, fresh_prefix("pool"))
    await Toy.prepare(toy_before := Toy(admin_url, bootstrap_servers, toy.prefix))
    tenants, keys = [uuid4() for _ in range(3)], [uuid4() for _ in range(5)]
    async with pooled(mode, SERVICE) as toy.pool, toy.shell() as shell, toy.relay("one"), toy.member(shell):
        for _ in range(10):
            await asyncio.gather(*(shell.execute(command(tenant, key)) for tenant in tenants for key in keys))
        async with asyncio.timeout(120):
            while (await toy_before.totals(tenants))["applied"] < 150:
                await asyncio.sleep(0.1)
    assert await toy_before.totals(tenants) == {"committed": 150, "applied": 150, "violations": 0}


@pytest.mark.parametrize("mode", MODES)
async def test_through_a_pool_no_transaction_sees_the_tenants_of_another(
    mode: str, shared: Places, pooled: Callable[..., Any]
) -> None:
    async def one(database: Database) -> None:
        tenant = uuid4()
        async with database.transaction([tenant]) as connection:
            assert (wire_of(connection) is not None) is (mode == "session")
            for _ in range(3):
                assert await connection.fetchval(SETTING, "") == str(tenant)
        async with database.acquire() as connection:
            assert not await connection.fetchval(SETTING, "")

    async with pooled(mode, "cart") as pool:
        # The pool has 20 to lend: for a session that is all there can be, by the transaction more than that come by.
        size = {"session": 15, "transaction": 60}[mode]
        database = await Database.connect(pool.through(shared("cart").url("app")), application="pooled", size=size)
        await asyncio.gather(*(one(database) for _ in range(200)))
        async with database.acquire() as connection:
            limits = await connection.fetchrow("SELECT current_setting('statement_timeout'), current_setting('enable_seqscan')")
        await database.close()
    # By the transaction those of the role hold, which `provision` makes; nothing is left behind on a connection.
    assert tuple(limits) == {"session": ("20s", "off"), "transaction": ("1min", "on")}[mode]


async def test_a_pool_that_nobody_spoke_of_is_told_as_such(shared: Places, pooled: Callable[..., Any]) -> None:
    async with pooled("session", "cart") as pool:
        url = pool.through(shared("cart").url("app"), "none")
        with pytest.raises(UnavailableError, match="a pool stands before it: say pooling=session or pooling=transaction"):
            await Database.connect(url, application="pooled", size=1)
        plain = await asyncpg.connect(url.partition("?")[0])
        await plain.close()


POOLED = "postgresql://cart_app@pool/cart?pooling=transaction"
DIRECT = "postgresql://cart_app@server/cart"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"DATABASE_URL": POOLED}, "DATABASE_URL .*nobody can listen: set CARTWRIGHT_SESSION_DATABASE_URL"),
        ({"DATABASE_URL": DIRECT, "RELAY_DATABASE_URL": POOLED}, "RELAY_DATABASE_URL .*needs a session"),
        ({"DATABASE_URL": POOLED, "SESSION_DATABASE_URL": POOLED}, "SESSION_DATABASE_URL .*needs a session"),
        ({"DATABASE_URL": POOLED, "SESSION_DATABASE_URL": DIRECT, "RELAY_DATABASE_URL": DIRECT}, None),
    ],
)
def test_what_needs_a_session_is_refused_where_there_is_none(
    given: dict[str, str], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"KAFKA_BOOTSTRAP_SERVERS": "k:1", "ISSUER": "i", "JWKS_URL": "j", "HTTP_PORT": "1"}
    for name, value in {**needed, "ISSUER_ROOT_PUBLIC_KEY": PUBLIC_ROOT, **given}.items():
        monkeypatch.setenv(f"CARTWRIGHT_{name}", value)
    if told is None:
        assert Settings.read().listening_url == DIRECT
    else:
        with pytest.raises(SettingsError, match=told):
            Settings.read()
