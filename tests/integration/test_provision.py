"""`provision`: what a deployment stands on is made once, and told before it is made."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource

from deploy.local.access import Acl, Operation, Pattern, Permission, Resource, declared_access
from deploy.local.environment import python
from deploy.local.kafka.admin import kafka_admin
from deploy.local.ports import choose_ports
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.state import ROOT, Home
from deploy.local.topics import declared_topics
from services import SERVICES
from tests.shared.servers import SECRET, manager_at
from tests.shared.variables import without_ours

SMALL = ("--partitions", "2", "--replication", "1", "--min-in-sync", "1")


@dataclass(frozen=True)
class Servers:
    """Those of a deployment, with an administrator of its databases who is no superuser."""

    admin_url: str
    bootstrap_servers: str
    prefix: str
    home: Path

    async def provision(self, *options: str) -> list[str]:
        """What the verb prints."""
        environment = without_ours() | {
            "CARTWRIGHT_HOME": str(self.home),
            "CARTWRIGHT_POSTGRES_ADMIN_URL": self.admin_url,
            "CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "CARTWRIGHT_TOPIC_PREFIX": self.prefix,
            "PYTHONPATH": str(ROOT),
        }
        command = python("deploy.cli", "provision", *options)
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
        told, _ = await process.communicate()
        assert process.returncode == 0
        return told.decode().splitlines()

    async def there(self) -> tuple[set[str], set[str], set[Acl]]:
        """The databases, topics and rights that are this deployment's."""
        connection = await asyncpg.connect(self.admin_url)
        names = {row[0] for row in await connection.fetch("SELECT datname FROM pg_database WHERE datname = ANY ($1)", SERVICES)}
        await connection.close()
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        topics = {name for name in await admin.list_topics() if name.startswith(self.prefix)}
        await admin.close()
        async with kafka_admin(self.bootstrap_servers) as rights:
            return names, topics, {acl for acl in await rights.acls() if acl.name.startswith(self.prefix)}


@pytest.fixture
async def servers(
    admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[Servers]:
    assert admin_url  # that there is one says that a server of our own runs here
    home = Home(tmp_path / "home")
    home.prepare()
    postgres = EmbeddedPostgres(home, choose_ports(["postgres"], {}, print, spread=True)["postgres"])
    await postgres.start()
    url = await manager_at(postgres.admin_url)
    yield Servers(url, bootstrap_servers, fresh_prefix("provision").replace("_", "."), tmp_path / "elsewhere")
    await postgres.stop()


async def test_it_does_what_its_plan_says_and_a_second_time_nothing(servers: Servers, tmp_path: Path) -> None:
    options = (*SMALL, "--secrets", str(tmp_path / "secrets"))
    planned = await servers.provision("--plan", *options)
    assert await servers.there() == (set(), set(), set()), "a plan changes nothing"
    assert not (tmp_path / "secrets").exists()
    done = await servers.provision(*options)
    assert (done[:-1], done[-1]) == (planned[:-1], planned[-1].replace("to be done", "done"))
    topics = {servers.prefix + topic.name for topic in declared_topics()}
    made = ({*SERVICES}, topics, declared_access().acls(servers.prefix))
    with suppress(TimeoutError):  # the broker tells of rights a moment after it has taken them
        async with asyncio.timeout(60):
            while await servers.there() != made:
                await asyncio.sleep(0.1)
    assert await servers.there() == made
    assert SECRET not in "".join(done)
    again = await servers.provision(*options)
    assert [line for line in again if not line.startswith("! ")] == ["nothing done"]
    assert {line.rpartition("(")[2] for line in again[:-1]} == {"a superuser has to)"}
    for service in SERVICES:
        for file in (f"{service}/database-url", f"{service}/relay-database-url", f"{service}-owner/owner-database-url"):
            path = tmp_path / "secrets" / file
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            connection = await asyncpg.connect(path.read_text())
            assert await connection.fetchval("SELECT current_database()") == service
            await connection.close()


async def test_a_cell_has_databases_of_its_own_beside_those_that_were_there_and_of_identity_none(
    servers: Servers, tmp_path: Path
) -> None:
    only = ("--only", "databases")
    await servers.provision(*only)
    options = (*only, "--cell", "east", "--secrets", str(tmp_path / "secrets"))
    assert (await servers.provision(*options))[-1] != "nothing done"
    assert [line for line in await servers.provision(*options) if not line.startswith("! ")] == ["nothing done"]
    for service in SERVICES:
        folders = [tmp_path / "secrets" / f"{service}-east{of}" for of in ("", "-owner")]
        assert [each.exists() for each in folders] == [service != "identity"] * 2
        if service != "identity":
            connection = await asyncpg.connect((folders[1] / "owner-database-url").read_text())
            assert await connection.fetchval("SELECT current_database()") == f"east_{service}"
            await connection.close()
            told = json.loads((tmp_path / "secrets" / service / "cell-database-urls").read_text())
            assert told == {"east": (folders[0] / "database-url").read_text()}, "what the main cell's APIs are told"


async def test_what_was_changed_since_is_told_line_by_line_and_put_right(servers: Servers) -> None:
    only = ("--only", "topics", "--only", "rights", *SMALL)
    await servers.provision(*only)
    cart, order = f"{servers.prefix}cart.v1", f"{servers.prefix}order.v1"
    forged = Acl("User:cart", Permission.ALLOW, Operation.WRITE, Resource.TOPIC, Pattern.LITERAL, order)
    lost = Acl("User:checkout", Permission.ALLOW, Operation.WRITE, Resource.TOPIC, Pattern.LITERAL, order)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.bootstrap_servers)
    await admin.start()
    await admin.alter_configs([ConfigResource("topic", cart, {"retention.ms": "1", "segment.ms": "86400000"})])
    await admin.delete_topics([order])
    async with kafka_admin(servers.bootstrap_servers) as rights:
        await rights.grant([forged])
        await rights.revoke([lost])
        async with asyncio.timeout(60):
            while lost in (found := await rights.acls()) or forged not in found or order in await admin.list_topics():
                await asyncio.sleep(0.1)
    settings = "cleanup.policy=delete, max.message.bytes=1048576, min.insync.replicas=1, retention.ms=604800000"
    lines = {
        f"~ topic {cart}: {settings}",
        f"+ topic {order}: 2 partitions, 1 replicas, {settings}",
        f"+ {lost}",
        f"- {forged}",
    }
    planned = await servers.provision("--plan", *only)
    assert {*planned} == {*lines, "4 to be done"}
    assert {*await servers.provision(*only)} == {*lines, "4 done"}
    async with asyncio.timeout(60):
        while await servers.provision("--plan", *only) != ["nothing to be done"]:
            await asyncio.sleep(0.1)
    [held] = await admin.describe_configs([ConfigResource("topic", cart, {"segment.ms": ""})])
    assert held.resources[0][4][0][1] == "86400000", "what others have set stays"
    await admin.close()
    more = await servers.provision("--plan", "--only", "topics", "--partitions", "3", "--replication", "1", "--min-in-sync", "1")
    assert f"! topic {cart}: it has 2 partitions, declared are 3" in more
    assert more[-1] == "nothing to be done"
