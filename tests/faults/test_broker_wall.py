"""The broker refuses whatever the matrix of rights does not grant, and grants what it does: asked of a real one, cell by cell."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import create_conn
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from pydantic import SecretStr

from deploy.local.access import ANONYMOUS, Acl, Operation, Pattern, Permission, Resource, declared_access
from deploy.local.errors import StackError
from deploy.local.infrastructure import BROKER_PORTS
from deploy.local.kafka.admin import kafka_admin
from deploy.local.kafka.broker import EmbeddedKafka
from deploy.local.kafka.listeners import ADMIN, admin_options
from deploy.local.kafka.wall import plan, raise_wall
from deploy.local.ports import HOST, choose_ports
from deploy.local.state import Home
from deploy.local.topics import create_topics, declared_topics
from libs.common.messaging.broker import Broker, BrokerRefusedError
from services import SERVICES

if TYPE_CHECKING:
    from libs.common.settings import Settings

PATIENCE_SECONDS = 60
PREFIX = "walled."
ACCESS = declared_access()
TOPICS = [topic.name for topic in declared_topics()]
OF_ALL = {**ACCESS.principals, ANONYMOUS: ACCESS.anonymous}

REFUSED = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
)


@dataclass(frozen=True)
class Wall:
    """A broker with the matrix of rights on it."""

    broker: EmbeddedKafka
    ports: dict[str, int]

    def client(self, principal: str) -> dict[str, Any]:
        """How somebody connects."""
        if principal == ANONYMOUS:
            return {"bootstrap_servers": self.broker.bootstrap_servers}
        return self.broker.sasl.client(principal)

    async def raised(self, prefix: str = PREFIX) -> Any:
        """Have users and rights; answers what was changed."""
        users = {name: each.secret() for name, each in self.broker.sasl.principals.items()}
        return await raise_wall(admin_options(self.broker.sasl), ACCESS, users=users, prefix=prefix, anonymous=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wall(bootstrap_servers: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wall]:
    """A broker of its own: the one that tests share lets everybody do everything. That it is there says that Java is."""
    assert bootstrap_servers
    home = Home(tmp_path_factory.mktemp("wall"))
    home.prepare()
    ports = choose_ports(BROKER_PORTS, {}, print, spread=True)
    broker = EmbeddedKafka(home, ports, access="publishers")
    await broker.start()
    try:
        wall = Wall(broker, ports)
        await create_topics(topics=declared_topics(), prefix=PREFIX, **admin_options(broker.sasl))
        await wall.raised()
        await _in_force(wall)
        yield wall
    finally:
        await broker.kill()


async def _in_force(wall: Wall) -> None:
    """The controller has taken the rights; wait until the broker goes by them."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await _denied(wall, ANONYMOUS, _produce(["catalog.v1"])) or await _denied(wall, "operator", _fetch(TOPICS)):
            await asyncio.sleep(0.1)


def _produce(topics: Iterable[str]) -> ProduceRequest:
    """One record to each topic, from who does not ask first where they are."""
    batch = DefaultRecordBatchBuilder(2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=0)
    batch.append(0, timestamp=int(time.time() * 1000), key=b"nobody:nothing", value=b"{}", headers=[])
    records = bytes(batch.build())
    places = [(PREFIX + topic, [(0, records)]) for topic in topics]
    return ProduceRequest(transactional_id=None, required_acks=-1, timeout=5_000, topics=places)


def _fetch(topics: Iterable[str]) -> FetchRequest:
    """What there is in each topic."""
    places = [(PREFIX + topic, [(0, 0, 1_000)]) for topic in topics]
    return FetchRequest(max_wait_time=0, min_bytes=0, max_bytes=10_000, isolation_level=0, topics=places)


async def _denied(wall: Wall, principal: str, request: Any) -> set[str]:
    """The topics of a request that the broker denies this principal. Whatever else goes wrong is an error."""
    client = wall.client(principal)
    host, _, port = client.pop("bootstrap_servers").partition(":")
    answer = await _asked(host, int(port), request, **client)
    codes = {name.removeprefix(PREFIX): code for name, [(_, code, *_)] in answer.topics}
    assert {*codes.values()} <= {0, kafka.TopicAuthorizationFailedError.errno}, codes
    return {topic for topic, code in codes.items() if code}


async def _asked(host: str, port: int, request: Any, **client: Any) -> Any:
    connection = await create_conn(host, port, **client)
    try:
        return await connection.send(request)
    finally:
        connection.close()


async def _refusal(attempt: Any) -> str | None:
    """The name of the broker's refusal; None if it let us."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await attempt
    except REFUSED as error:
        return type(error).__name__
    return None


async def _writes(wall: Wall, principal: str, topic: str, **how: Any) -> None:
    """Publish one record."""
    producer = AIOKafkaProducer(**wall.client(principal), **how)
    try:
        await producer.start()
        await producer.send_and_wait(PREFIX + topic, b"{}", key=b"nobody:nothing")
    finally:
        await producer.stop()


async def _joins(wall: Wall, principal: str, topic: str, group: str) -> None:
    """Be given partitions as a member of a group."""
    consumer = AIOKafkaConsumer(PREFIX + topic, **wall.client(principal), group_id=PREFIX + group)
    try:
        await consumer.start()
        while not consumer.assignment():
            await consumer.getmany(timeout_ms=200)
    finally:
        await consumer.stop()


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("principal", OF_ALL)
async def test_everybody_can_do_what_the_matrix_says(wall: Wall, principal: str) -> None:
    rights = OF_ALL[principal]
    for topic in rights.writes:
        assert await _refusal(_writes(wall, principal, topic)) is None, f"write {topic}"
        assert await _refusal(_writes(wall, principal, topic, enable_idempotence=True)) is None, f"write {topic} in batches"
    for group in rights.groups:
        assert await _refusal(_joins(wall, principal, rights.reads[0], group)) is None, group
        assert await _refusal(_joins(wall, principal, rights.reads[0], f"{group}.timeline")) is None, f"{group}.timeline"
    for begin in rights.transactions:
        assert await _refusal(_in_transaction(wall, principal, begin.replace("*", "erp-7"), rights.writes[0])) is None


async def _in_transaction(wall: Wall, principal: str, begin: str, topic: str) -> None:
    transactional_id = begin if begin == "erp-7" else f"{PREFIX}{begin}1"
    producer = AIOKafkaProducer(**wall.client(principal), transactional_id=transactional_id)
    try:
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(PREFIX + topic, b"{}", key=b"nobody:nothing")
    finally:
        await producer.stop()


@pytest.mark.parametrize("principal", OF_ALL)
async def test_a_topic_takes_records_from_those_who_may_write_to_it_and_from_nobody_else(wall: Wall, principal: str) -> None:
    assert await _denied(wall, principal, _produce(TOPICS)) == {*TOPICS} - {*OF_ALL[principal].writes}


@pytest.mark.parametrize("principal", OF_ALL)
async def test_a_topic_is_read_by_those_who_may_and_by_nobody_else(wall: Wall, principal: str) -> None:
    assert await _denied(wall, principal, _fetch(TOPICS)) == {*TOPICS} - {*OF_ALL[principal].reads}


async def test_a_forger_without_credentials_is_refused_what_only_a_service_says(wall: Wall) -> None:
    for topic in ("payment.v1", "checkout.v1", "order.v1", "cart.v1", "signing-key.v1", "tenant.v1", "revocation.v1"):
        assert await _refusal(_writes(wall, ANONYMOUS, topic)) == "TopicAuthorizationFailedError", topic
        assert await _denied(wall, ANONYMOUS, _produce([topic])) == {topic}


@pytest.mark.parametrize("principal", OF_ALL)
async def test_nobody_joins_anothers_group(wall: Wall, principal: str) -> None:
    rights = OF_ALL[principal]
    for group in SERVICES:
        if group not in rights.groups:
            for name in (group, f"{group}.timeline"):
                assert await _refusal(_joins(wall, principal, (rights.reads or rights.writes)[0], name)), name


async def test_who_comes_without_credentials_makes_no_topic_and_ends_no_transaction_of_a_publisher(wall: Wall) -> None:
    admin = AIOKafkaAdminClient(**wall.client(ANONYMOUS))
    await admin.start()
    try:
        response = await admin.create_topics([NewTopic(f"{PREFIX}evil", 1, 1)])
        assert [code for _, code, *_ in response.topic_errors] == [kafka.TopicAuthorizationFailedError.errno]
        assert {*await admin.list_topics()} == {PREFIX + topic for topic in ACCESS.anonymous.writes}
        assert await admin.list_consumer_groups() == []
    finally:
        await admin.close()
    taken = _in_transaction(wall, ANONYMOUS, "publisher-catalog.", "catalog.v1")
    assert await _refusal(taken) == "TransactionalIdAuthorizationFailed"


@pytest.mark.parametrize("principal", [ANONYMOUS, "operator", "identity", "publisher-catalog"])
async def test_only_the_administrator_makes_users_and_rights(wall: Wall, principal: str) -> None:
    mine = Acl(f"User:{principal}", Permission.ALLOW, Operation.WRITE, Resource.TOPIC, Pattern.LITERAL, f"{PREFIX}payment.v1")
    async with kafka_admin(**wall.client(principal)) as admin:
        for attempt in (admin.put_users({ADMIN: "mine now"}), admin.grant([mine]), admin.acls(), admin.revoke([mine])):
            with pytest.raises(StackError, match=r"refuses|administered"):
                await attempt


async def test_the_controllers_port_lets_in_nobody_but_the_node(wall: Wall) -> None:
    port = wall.ports["kafka.controller"]
    with pytest.raises((kafka.KafkaError, OSError)):  # it hangs up on who does not say who he is
        await _asked(HOST, port, _produce(["payment.v1"]))
    for principal in ("operator", "identity"):
        client = {key: value for key, value in wall.client(principal).items() if key != "bootstrap_servers"}
        for mechanism in ("PLAIN", "SCRAM-SHA-512"):
            with pytest.raises((kafka.SaslAuthenticationFailed, kafka.UnsupportedSaslMechanismError)):
                await create_conn(HOST, port, **client | {"sasl_mechanism": mechanism})


async def test_a_wrong_secret_and_an_unknown_name_are_not_let_in(wall: Wall) -> None:
    client = {key: value for key, value in wall.client("cart").items() if key != "bootstrap_servers"}
    port = wall.ports["kafka.sasl"]
    for wrong in ({"sasl_plain_password": "guessed"}, {"sasl_plain_username": "nobody"}, {"sasl_mechanism": "PLAIN"}):
        with pytest.raises(kafka.SaslAuthenticationFailed):
            await create_conn(HOST, port, **client | wrong)


async def test_what_is_granted_besides_is_taken_back_and_the_rights_of_other_deployments_stay(wall: Wall) -> None:
    assert not [*(await wall.raised()).lines()]  # what is there is what should be
    forged = Acl("User:cart", Permission.ALLOW, Operation.WRITE, Resource.TOPIC, Pattern.LITERAL, f"{PREFIX}payment.v1")
    others = forged._replace(name="another.payment.v1")
    async with kafka_admin(**admin_options(wall.broker.sasl)) as admin:
        await admin.grant([forged, others])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not {forged, others} <= await admin.acls():
                await asyncio.sleep(0.1)
        found = await plan(admin, ACCESS, PREFIX, anonymous=True)
        assert (found.missing, found.surplus) == (frozenset(), frozenset({forged}))
    assert (await wall.raised()).surplus == {forged}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await _refusal(_writes(wall, "cart", "payment.v1")) is None:
            await asyncio.sleep(0.1)


async def test_the_secrets_are_readable_by_their_owner_alone(wall: Wall) -> None:
    for each in wall.broker.sasl.principals.values():
        assert each.secret_file.stat().st_mode & 0o077 == 0, each.username
    assert (wall.broker.sasl.principals[ADMIN].secret_file.parents[1] / "kafka").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("principal", "secret", "reason"),
    [
        ("cart", "guessed", "cart is not let in: .*credentials"),
        ("nobody", "guessed", "nobody is not let in: .*credentials"),
        ("operator", None, "^ClusterAuthorizationFailed$"),
    ],
)
async def test_a_relay_that_may_publish_nothing_is_told_so_and_not_that_the_broker_is_away(
    wall: Wall, principal: str, secret: str | None, reason: str
) -> None:
    client = wall.client("operator" if principal == "nobody" else principal)
    settings = SimpleNamespace(
        kafka_bootstrap_servers=client["bootstrap_servers"],
        topic_prefix=PREFIX,
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username=principal,
        kafka_sasl_password=SecretStr(secret or client["sasl_plain_password"]),
    )
    with pytest.raises(BrokerRefusedError, match=reason):
        await Broker(cast("Settings", settings)).producer()
