"""The demo on parts as others have them: each is real, and runs as somebody else would run it."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient

from deploy.cli.api import connected
from deploy.cli.demo.run import play
from deploy.cli.tenants import Wish, onboarded
from deploy.local.databases import ROLES, cell_prefix, database_url, role_password
from deploy.local.environment import Wiring, python
from deploy.local.infrastructure import ports_needed
from deploy.local.kafka.brokers import KafkaCluster
from deploy.local.ports import HOST, choose_ports, spare_port
from deploy.local.stack import Stack
from deploy.local.state import ROOT, Home
from deploy.local.topics import declared_topics
from services import SERVICES
from tests.shared.certificates import Authority
from tests.shared.guarded_broker import SECRET, USER, Guarded, guarded_broker, token
from tests.shared.servers import manager_at, pgbouncer, postgres, with_tls
from tests.shared.variables import without_ours
from tests.shared.way import NAME, VARIABLES, way_to_a_fake

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.long("a demo on each of others' parts: a minute each; each by itself is in every build"),
]

NOBODY = 65_534
WELL = {"orders": 9, "declined": 1, "lost": 0, "duplicated": 0, "ok": True}


async def _ran(command: Sequence[str | Path], home: Path, variables: dict[str, object], **others: str) -> str:
    """What a verb says whose variables, without our prefix, are these."""
    inherited = {name: each for name, each in without_ours().items() if name not in VARIABLES}
    ours = {f"CARTWRIGHT_{name.upper()}": str(each) for name, each in ({"home": home} | variables).items() if each}
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    environment = {"PYTHONPATH": str(ROOT)} | inherited | ours | others
    process = await asyncio.create_subprocess_exec(*command, env=environment, **pipes)  # type: ignore[arg-type]
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()[-4_000:]
    return out.decode()


async def _is_well(home: Path, variables: dict[str, object], command: Sequence[str | Path] = (), **others: str) -> None:
    said = await _ran(command or python("deploy.cli", "demo", "--json"), home, variables, **others)
    told = json.loads(said)
    assert {name: told[name] for name in WELL} == WELL
    assert told["orders_total_minor"] == told["captured_total_minor"] > 0


# --- Brokers ------------------------------------------------------------------------------------------------------


async def test_on_three_brokers_of_whose_addresses_the_first_is_dead(tmp_path: Path) -> None:
    home = Home(tmp_path / "cluster")
    home.prepare()
    nodes = ports_needed("cluster", postgres_admin_url="elsewhere", kafka_bootstrap=None)
    cluster = KafkaCluster(home, choose_ports(nodes, {}, print, spread=True), access="open")
    await cluster.start()
    try:
        addresses = f"{HOST}:{spare_port()},{cluster.bootstrap_servers}"
        where: dict[str, object] = {"kafka_bootstrap_servers": addresses, "topic_prefix": "shop-eu."}
        await _ran(python("deploy.cli", "provision", "--only", "topics"), tmp_path / "demo", where)
        await _is_well(tmp_path / "demo", where)
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
        await admin.start()
        found = await admin.describe_topics([f"shop-eu.{each.name}" for each in declared_topics()])
        await admin.close()
    finally:
        await cluster.stop()
    laid_out = {each["topic"]: (len(each["partitions"]), len(each["partitions"][0]["replicas"])) for each in found}
    assert laid_out == {f"shop-eu.{each.name}": (each.partitions, 3) for each in declared_topics(where="production")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    async with guarded_broker(tmp_path_factory.mktemp("guarded")) as guarded:
        yield guarded


@pytest.mark.parametrize("shown", ["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER", "certificate"])
async def test_on_a_broker_with_tls_that_wants_to_be_shown(shown: str, guarded: Guarded, tmp_path: Path) -> None:
    own: dict[str, object]
    if shown == "certificate":
        door, own = "mutual", {"ssl_certfile": guarded.member.certificate, "ssl_keyfile": guarded.member.key}
    elif shown == "OAUTHBEARER":
        (tmp_path / "token").write_text(token(seconds=3_600))
        door, own = "asking", {"sasl_mechanism": shown, "sasl_tokenfile": tmp_path / "token"}
    else:
        (tmp_path / "password").write_text(SECRET)
        door, own = "asking", {"sasl_mechanism": shown, "sasl_username": USER, "sasl_password_file": tmp_path / "password"}
    variables = guarded.settings(door, topic_prefix=f"{shown.lower()}.", **{f"kafka_{name}": each for name, each in own.items()})
    await _is_well(tmp_path / "demo", variables)


# --- Databases ----------------------------------------------------------------------------------------------------


async def test_on_a_database_over_tls_whose_administrator_is_no_superuser(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "files", "trusted")
    own = authority.certify("server")
    async with postgres(tmp_path, settings=with_tls(own), access=["hostssl all all all scram-sha-256"]) as server:
        url = server.url(sslmode="verify-full", sslrootcert=authority.file)
        await _is_well(tmp_path / "demo", {"postgres_admin_url": await manager_at(url)})


@dataclass(frozen=True)
class Pooled(Wiring):
    """Services that reach their databases through a pool: all that they do there where it lends for a session, else what can."""

    port: int = 0
    mode: str = ""

    def _values(self, service: str, kind: Any, port: int, ops_port: int, cell: str) -> dict[str, str]:
        direct = database_url(self.admin_url, service, "app", cell_prefix(cell, self.database_prefix))
        beside = direct if self.mode == "transaction" else ""
        return Wiring._values(self, service, kind, port, ops_port, cell) | {"SESSION_DATABASE_URL": beside}

    def _database(self, service: str, role: Literal["owner", "app", "relay"], cell: str) -> str:
        direct = urlsplit(database_url(self.admin_url, service, role, cell_prefix(cell, self.database_prefix)))
        if role != "app" and self.mode == "transaction":
            return direct.geturl()
        login = direct.netloc.rpartition("@")[0]
        return direct._replace(netloc=f"{login}@{HOST}:{self.port}", query=f"pooling={self.mode}").geturl()


class PooledStack(Stack):
    """A stack with a pool before its database."""

    pool: tuple[int, str]

    def _describe(self) -> None:
        super()._describe()
        assert self._wiring
        port, mode = self.pool
        self._wiring = Pooled(**{each.name: getattr(self._wiring, each.name) for each in fields(Wiring)}, port=port, mode=mode)


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_through_a_pool(mode: str, tmp_path: Path) -> None:
    async with postgres(tmp_path, settings=["max_connections=300"]) as server:
        admin_url = server.url()
        roles = [f"{service}_{role}" for service in SERVICES for role in ROLES]
        users = {role: role_password(admin_url, role) for role in roles}
        async with pgbouncer(server.port, tmp_path, users, mode=mode) as port:
            stack = PooledStack(tmp_path / "demo", database_prefix="pooled_", postgres_admin_url=admin_url, say=print)
            stack.pool = (port, mode)
            async with stack, connected(stack.description()) as api:
                shop = (await onboarded(api, Wish.of("demo", currency="GBP"))).shop(api)
                assert (await play(api, shop, print)).is_ok


# --- The provider, and the machine --------------------------------------------------------------------------------


async def test_past_a_companys_proxy_to_a_provider_that_its_authority_certifies(tmp_path: Path) -> None:
    async with way_to_a_fake(tmp_path) as way:
        variables: dict[str, object] = {"stripe_api_base": f"https://{NAME}", "stripe_api_key": "sk_test_company"}
        known = {"HTTPS_PROXY": way.proxy, "SSL_CERT_FILE": str(way.authority.file)}
        await _is_well(tmp_path / "demo", variables, **known)
        assert {*way.asked} == {f"CONNECT {NAME}:443 HTTP/1.1"}


def _interpreter(version: str) -> Path:
    for each in (Path(f"/usr/bin/python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")):
        if each.exists():
            return each
    pytest.skip(f"not proven: with Python {version} (there is none on this machine)")


async def _succeeds(*command: str) -> bool:
    return await (await asyncio.create_subprocess_exec(*command)).wait() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may look into."""
    made = Path(tempfile.mkdtemp(prefix="cartwright-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
async def test_with_each_python_in_a_folder_of_another_alphabet_and_not_as_root_where_others_may_run_it(
    version: str, folder: Path
) -> None:
    interpreter = _interpreter(version)
    clone = folder / "Käse & Brot ☕ 商店"
    assert await _succeeds("git", "clone", "-q", str(ROOT), str(clone))
    command: list[str | Path] = [clone / "cartwright", "demo", "--json"]
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    if os.geteuid() == 0 and await _succeeds(*nobody, str(interpreter), "-V"):
        assert await _succeeds("chown", "-R", f"{NOBODY}:{NOBODY}", str(folder))
        command = [*nobody, *command]
    else:
        print(f"as whoever runs the tests: {interpreter} is nobody else's")
    own = {name: os.environ[name] for name in VARIABLES & os.environ.keys()} | {"HOME": str(folder), "PYTHONPATH": ""}
    await _is_well(clone / "zuhause", {"python": interpreter}, command, **own)
