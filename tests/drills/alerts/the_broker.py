"""What is broken at the broker, and what is said there that must not be believed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.cli.publisher import Fact
from deploy.local.access import Acl, Operation, Pattern, Permission, Resource, declared_access
from deploy.local.kafka.admin import kafka_admin
from deploy.local.kafka.listeners import admin_options
from deploy.local.kafka.wall import raise_wall
from deploy.local.topics import create_topics, declared_topics
from libs.common.certificates import public_jwk
from tests.drills.alerts.scene import Blanks, Scene, situation
from tests.shared.batches import batch, produce, record
from tests.shared.limits import limit_topic

_STACK: Final = {"./cartwright down": "it ends the stack", "./cartwright up": "as above"}
REFUSING: Final = """CREATE FUNCTION wrong() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'wrong'; END $$;
CREATE TRIGGER wrong BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION wrong()"""


def _options(scene: Scene) -> dict[str, Any]:
    sasl = scene.market.stack.description().kafka_sasl
    assert sasl
    return admin_options(sasl)


@asynccontextmanager
async def _admin(scene: Scene) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**_options(scene))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@situation(
    "refused-by-broker",
    "CartwrightBrokerRefuses",
    "CartwrightTopicRefused",
    not_run=_STACK,
)
async def _rights_are_taken_away(scene: Scene) -> AsyncIterator[Blanks]:
    taken = [
        Acl("User:payments", Permission.ALLOW, Operation.READ, Resource.TOPIC, Pattern.LITERAL, "checkout.v1"),
        Acl("User:checkout", Permission.ALLOW, Operation.WRITE, Resource.TOPIC, Pattern.LITERAL, "checkout.v1"),
    ]
    async with kafka_admin(**_options(scene)) as rights:
        await rights.revoke(taken)
    await scene.begun("refused")
    yield {}
    change = await raise_wall(_options(scene), declared_access(), users={}, prefix="", anonymous=True)
    assert change.missing == {*taken}


@situation(
    "rotated-keys", "CartwrightKeysRefused", "CartwrightRevocationsRefused", not_run=dict.fromkeys(("./cartwright",), "planned")
)
async def _somebody_announces_keys(scene: Scene) -> AsyncIterator[Blanks]:
    async with AIOKafkaConsumer("signing-key.v1", auto_offset_reset="earliest", **_options(scene)) as consumer:
        genuine = await consumer.getone()
    async with AIOKafkaProducer(**_options(scene)) as producer:

        async def lie() -> None:
            jwk = public_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())
            said = orjson.loads(genuine.value)
            other = said["kid"].encode(), jwk["kid"].encode()
            headers = [(name, text.replace(*other)) for name, text in genuine.headers]
            for value in (orjson.dumps({**said, "kid": jwk["kid"], "jwk": jwk, "certificate": None}), b"{"):
                await producer.send_and_wait("signing-key.v1", value, key=genuine.key.replace(*other), headers=headers)

        async with scene.again_and_again(lie, pause=0.5):
            yield {}


@situation("", "CartwrightEventsSetAside")
async def _a_topic_takes_small_events_alone(scene: Scene) -> AsyncIterator[Blanks]:
    await limit_topic("cart.v1", 150, **_options(scene))
    await scene.begun("set-aside")
    yield {}
    await limit_topic("cart.v1", 1_048_588, **_options(scene))

    async def replayed() -> bool:  # the broker may not have heard yet that it takes more
        said = await scene.verb("parked", "replay", "--all", "--service", "cart", "--json")
        return bool(said.told == {"replay": 0, "failed": []})

    await scene.market.until(replayed)


@situation("", "CartwrightRecordsMissed")
async def _records_are_gone_before_they_are_read(scene: Scene) -> AsyncIterator[Blanks]:
    tenant, price = scene.market.shop.tenant_id, {"currency": "GBP", "unit_minor": 901}

    def priced(sku: str, sequence: int) -> Fact:
        return Fact("catalog.v1", "price.changed", "/test/gone", tenant, sku, sequence, price)

    skus = [f"GONE-{number}" for number in range(50)]
    async with scene.stopped("cart.worker"):
        await scene.publish(*(priced(sku, 1) for sku in skus))
        async with AIOKafkaConsumer("catalog.v1", **_options(scene)) as consumer:
            ends = await consumer.end_offsets(consumer.assignment())
        async with _admin(scene) as admin:
            await admin.delete_records({partition: RecordsToDelete(before_offset=end) for partition, end in ends.items() if end})
        await scene.publish(*(priced(sku, 2) for sku in skus))
    yield {}


@situation("", "CartwrightBatchesUnreadable")
async def _a_batch_cannot_be_read(scene: Scene) -> AsyncIterator[Blanks]:
    made = batch([record(headers=[(b"\xff", b"")])])  # a header whose name is no text
    assert await produce(place=TopicPartition("catalog.v1", 0), made=made, **_options(scene)) == 0
    yield {}


@situation("halted-consumer", "CartwrightConsumerHalted")
async def _a_deploy_is_wrong(scene: Scene) -> AsyncIterator[Blanks]:
    async with scene.database("payments") as database:
        async with scene.stopped("payments.worker"):  # a new one has heard of those tenants alone who fail
            await database.execute(REFUSING)
        try:
            await asyncio.gather(*(scene.begun(f"halted-{number}") for number in range(40)))
            yield {}
        finally:
            await database.execute("DROP TRIGGER wrong ON payment; DROP FUNCTION wrong()")
    assert (await scene.verb("parked", "replay", "--all", "--service", "payments")).code == 0  # what failed before it halted


@situation("lost-log", "CartwrightLogReplaced")
async def _a_topic_is_made_anew(scene: Scene) -> AsyncIterator[Blanks]:
    async with _admin(scene) as admin:
        await admin.delete_topics(["fulfilment.v1"])
        while "fulfilment.v1" in await admin.list_topics():
            await asyncio.sleep(0.2)
    [topic] = [each for each in declared_topics(where="local") if each.name == "fulfilment.v1"]
    await create_topics(topics=[topic], **_options(scene))
    yield {}
