"""PostgreSQL as others run it: over TLS, on several servers, and with an administrator who is no superuser."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from deploy.local.databases import ROLES, database_url, plan, provision
from deploy.local.description import server_of
from deploy.local.environment import python
from deploy.local.ports import HOST, choose_ports, spare_port
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.state import ROOT, Home
from libs.common.database import Database
from libs.common.database.wire import wire_of
from libs.common.errors import UnavailableError
from libs.common.messaging.hints import Hints
from tests.shared.certificates import Authority, Certified
from tests.shared.servers import SECRET, Server, copied, manager_at, postgres, with_tls
from tests.shared.variables import without_ours

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENCRYPTED = ["hostssl replication all all scram-sha-256", "hostssl all badge all cert", "hostssl all all all scram-sha-256"]


@dataclass(frozen=True)
class Guarded:
    """A server that nobody reaches without TLS, and who is trusted."""

    server: Server
    authority: Authority
    other: Authority
    badge: Certified

    def url(self, database: str = "postgres", /, **parameters: object) -> str:
        trusted: dict[str, object] = {"sslmode": "verify-full", "sslrootcert": self.authority.file}
        return self.server.url(database, **trusted | parameters)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority, other = Authority(folder / "files", "trusted"), Authority(folder / "files", "other")
    own = authority.certify("server")
    settings = [*with_tls(own), f"ssl_ca_file={authority.file}"]
    async with postgres(folder, settings=settings, access=ENCRYPTED) as server:
        guarded = Guarded(server, authority, other, authority.certify("badge"))
        admin = await asyncpg.connect(guarded.url())
        await admin.execute("CREATE ROLE badge LOGIN")
        await admin.close()
        yield guarded


async def _in_use(url: str) -> tuple[bool, bool]:
    """Whether the server sees TLS, and whether transactions ride, on a connection as services have them."""
    database = await Database.connect(url, application="elsewhere", size=1)
    try:
        async with database.transaction([uuid4()]) as connection:
            is_encrypted = await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        return is_encrypted, wire_of(connection) is not None
    finally:
        await database.close()


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_service_reaches_its_database_over_tls_and_its_transactions_ride(guarded: Guarded, mode: str) -> None:
    assert await _in_use(guarded.url(sslmode=mode)) == (True, True)


async def test_a_certificate_of_ones_own_takes_the_place_of_a_password(guarded: Guarded) -> None:
    own: dict[str, object] = {"sslcert": guarded.badge.certificate, "sslkey": guarded.badge.key}
    url = guarded.url(**own).replace(f"postgres:{SECRET}", "badge:none")
    assert await _in_use(url) == (True, True)
    with pytest.raises(UnavailableError, match="certificate"):
        await _in_use(guarded.url().replace(f"postgres:{SECRET}", "badge:none"))


REFUSED = {
    "without TLS": ({"sslmode": "disable"}, "no encryption"),
    "another authority": ({"sslrootcert": "OTHER"}, "certificate verify failed"),
    "another authority, with any name": ({"sslrootcert": "OTHER", "sslmode": "verify-ca"}, "certificate verify failed"),
    "another name": ({"host": "localhost"}, "certificate is not valid for 'localhost'|Hostname mismatch"),
    "no such authority": ({"sslrootcert": "/nowhere/ca.pem"}, "its sslrootcert names /nowhere/ca.pem, which cannot be read"),
    "no such key": ({"sslcert": "/nowhere/crt", "sslkey": "/nowhere/key"}, "its sslcert names /nowhere/crt"),
    "no such mode": ({"sslmode": "verify"}, "`sslmode` parameter must be one of: .*verify-full"),
    "no such pooling": ({"pooling": "statement"}, "its pooling is 'statement', which is none of"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_database_that_is_not_who_it_should_be_is_told_in_one_line(guarded: Guarded, case: str, tmp_path: Path) -> None:
    parameters, told = REFUSED[case]
    host = parameters.get("host", HOST)
    asked = {name: str(guarded.other.file) if value == "OTHER" else value for name, value in parameters.items() if name != "host"}
    url = guarded.url(**asked).replace(HOST, host)
    with pytest.raises(UnavailableError, match=f"cannot connect with the given database URL: .*({told})"):
        await _in_use(url)
    run = await _migrates(url, tmp_path)
    assert run.returncode == 3, run.stderr
    [line] = run.stderr.splitlines()
    assert line.startswith("cartwright: cart is not migrated: ")


async def _migrates(url: str, folder: Path, service: str = "cart") -> subprocess.CompletedProcess[str]:
    """The verb, with the address in a file as a Secret is."""
    file = folder / "owner-database-url"
    file.write_text(url)
    environment = without_ours()
    environment |= {"CARTWRIGHT_OWNER_DATABASE_URL_FILE": str(file), "PYTHONPATH": str(ROOT)}
    return await asyncio.to_thread(
        subprocess.run,
        python("deploy.cli", "migrate", service),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_of_several_servers_whoever_may_be_written_to_is_used_by_all_that_write(guarded: Guarded, tmp_path: Path) -> None:
    await copied(tmp_path, guarded.url("replication").replace("/replication?", "/?"))
    own = guarded.authority.certify("standby")
    settings = [*with_tls(own), "hot_standby=on"]
    async with postgres(tmp_path, settings=settings) as standby:
        hosts = f"{HOST}:{spare_port()},{HOST}:{standby.port},{HOST}:{guarded.server.port}"
        admin_url = guarded.url(target_session_attrs="read-write").replace(f"{HOST}:{guarded.server.port}", hosts)
        assert server_of(admin_url) == (HOST, int(hosts.partition(",")[0].rpartition(":")[2]))
        assert await provision(admin_url, "cart", "several_")
        run = await _migrates(database_url(admin_url, "cart", "owner", "several_"), tmp_path)
        assert run.returncode == 0, run.stderr
        url = database_url(admin_url, "cart", "app", "several_")
        assert await _in_use(url) == (True, True)
        hints = Hints(url)
        await hints.start()
        async with asyncio.timeout(60):
            with hints.expect("something") as news:
                speaker = await asyncpg.connect(url)
                while not news.done():
                    await speaker.execute("SELECT pg_notify('cartwright', 'something')")
                    await asyncio.sleep(0.05)
        await speaker.close()
        await hints.close()


@pytest.mark.parametrize("server", ["embedded", "debian"])
async def test_an_administrator_who_is_no_superuser_makes_all_that_services_need(
    server: str, guarded: Guarded, tmp_path: Path, admin_url: str
) -> None:
    assert admin_url  # that there is one says that the embedded server runs here
    home = Home(tmp_path / "home")
    home.prepare()
    embedded = EmbeddedPostgres(home, choose_ports(["postgres"], {}, print, spread=True)["postgres"])
    if server == "embedded":
        await embedded.start()
    try:
        manager = await manager_at(embedded.admin_url if server == "embedded" else guarded.url())
        for service in ("identity", "cart", "checkout", "payments"):
            wanted = [str(step) for step in await plan(manager, service)]
            assert [str(step) for step in await provision(manager, service)] == wanted != []
            left = await provision(manager, service)
            assert {step.is_ours for step in left} == {False}, "a superuser alone may close a language"
            assert left == await plan(manager, service)
            run = await _migrates(database_url(manager, service, "owner"), tmp_path, service)
            assert run.returncode == 0, run.stderr
        for role in ROLES:
            connection = await asyncpg.connect(database_url(manager, "cart", role))
            await connection.close()
        assert SECRET not in str(wanted)
    finally:
        await embedded.stop()


async def test_what_was_changed_by_hand_is_put_right_and_nothing_else(guarded: Guarded) -> None:
    admin_url, prefix = guarded.url(), "mended_"
    made = await provision(admin_url, "toy", prefix)
    assert len(made) == 14
    assert await provision(admin_url, "toy", prefix) == []
    admin, let_in = await asyncpg.connect(admin_url), 'GRANT CONNECT ON DATABASE "mended_toy" TO "toy_app", "toy_relay"'
    for sql, lacking in (
        ("ALTER ROLE toy_app SUPERUSER BYPASSRLS", ["ALTER ROLE \"toy_app\" NOSUPERUSER NOBYPASSRLS PASSWORD '…'"]),
        ("ALTER ROLE toy_relay PASSWORD 'guessed'", ["ALTER ROLE \"toy_relay\" PASSWORD '…'"]),
        ("ALTER ROLE toy_owner NOLOGIN", ["ALTER ROLE \"toy_owner\" LOGIN PASSWORD '…'"]),
        ("ALTER ROLE toy_app SET lock_timeout = '1h'", ["ALTER ROLE \"toy_app\" SET lock_timeout = '30s'"]),
        ("GRANT CONNECT ON DATABASE mended_toy TO PUBLIC", ['REVOKE ALL ON DATABASE "mended_toy" FROM PUBLIC', let_in]),
        ("REVOKE CONNECT ON DATABASE mended_toy FROM toy_app", [let_in]),
    ):
        await admin.execute(sql)
        assert [str(step) for step in await plan(admin_url, "toy", prefix)] == lacking
        assert [str(step) for step in await provision(admin_url, "toy", prefix)] == lacking
        assert await provision(admin_url, "toy", prefix) == []
    await admin.close()
