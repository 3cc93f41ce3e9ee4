"""What is taken away is gone in every process within five seconds, and never comes back."""

import asyncio
import time
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy.cli.publisher import client_arguments
from services import SERVICES
from tests.shared.doors import DOORS, doors, is_believed, is_refused, told
from tests.shared.machines import Machine
from tests.shared.market import Market

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.long("every door of eight processes: two minutes; the rule is in tests/unit/common/test_revocations.py"),
]

BITES_SECONDS = 5.0


async def _bites(market: Market, token: str) -> None:
    """Every process refuses it within the promised time, which begins here."""
    begun = time.monotonic()
    await market.until(lambda: is_refused(market, token), BITES_SECONDS * 12)
    took = time.monotonic() - begun
    print(f"refused at {len([*doors(market)])} doors after {took:.1f} s")


async def test_a_deleted_clients_token_is_refused_at_every_door_also_after_a_restart_and_another_clients_goes_on(
    market: Market,
) -> None:
    doomed, spared = await Machine.of(market), await Machine.of(market)
    stolen, good = await doomed.token(), await spared.token()
    assert len({*await told(market, stolen)}) == DOORS
    assert await is_believed(market, stolen)
    await doomed.ended()
    await _bites(market, stolen)
    assert await is_believed(market, good)
    processes = [f"{service}.{kind}" for service in SERVICES for kind in ("api", "worker")]
    await asyncio.gather(*map(market.stack.kill, processes))
    await asyncio.gather(*map(market.stack.start_process, processes))
    assert await is_refused(market, stolen)
    assert await is_believed(market, good)


async def test_a_removed_secret_ends_the_tokens_of_before_and_the_other_gets_a_good_one_at_once(market: Market) -> None:
    machine = await Machine.of(market)
    await machine.another_secret()
    before = await machine.token()
    await machine.ended(f"/secrets/{machine.first}")
    after = [await machine.token() for _ in range(5)]
    await _bites(market, before)
    for token in after:
        assert await is_believed(market, token)


async def _epochs(market: Market, key: str) -> list[Any]:
    """Everything that the topic says of one of them."""
    stack, found = market.api.stack, list[Any]()
    topic = stack.topic_prefix + "revocation.v1"
    async with AIOKafkaConsumer(topic, auto_offset_reset="earliest", **client_arguments(stack)) as consumer:
        [(partition, end)] = (await consumer.end_offsets(consumer.assignment())).items()
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(timeout_ms=1_000)).get(partition, []):
                if record.key == key.encode():
                    found.append(record)
    return found


async def test_a_late_duplicate_nonsense_and_a_claim_of_a_far_day_change_nothing_and_are_put_right(market: Market) -> None:
    machine = await Machine.of(market)
    stolen = await machine.token()
    await machine.ended()
    await _bites(market, stolen)
    [genuine] = await _epochs(market, machine.id)
    said = orjson.loads(genuine.value)
    assert said == {"kind": "client", "id": machine.id, "epoch": said["epoch"]}
    late = {**said, "epoch": said["epoch"] - 60_000}
    ahead = {**said, "epoch": said["epoch"] + 365 * 86_400_000}
    async with AIOKafkaProducer(**client_arguments(market.api.stack)) as producer:
        for value in (orjson.dumps(ahead), b"\xff", b"", orjson.dumps({**said, "kind": "everybody"}), orjson.dumps(late)):
            await producer.send_and_wait(genuine.topic, value, key=genuine.key, headers=[*genuine.headers])
    assert await is_refused(market, stolen)
    assert await is_believed(market, await market.shop.token())

    async def is_told_again() -> bool:
        return bool(orjson.loads((await _epochs(market, machine.id))[-1].value or b"{}").get("epoch") == said["epoch"])

    await market.until(is_told_again, 150)
    await asyncio.gather(*(market.stack.kill(f"{service}.api") for service in SERVICES))
    await asyncio.gather(*(market.stack.start_process(f"{service}.api") for service in SERVICES))
    assert await is_refused(market, stolen)
