"""A database that was put back on the timeline it had: what it publishes is news, though its windows had these numbers before."""

from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from libs.common.messaging.broker import Broker
from libs.common.messaging.relay.furthest import NOWHERE, furthest
from libs.common.telemetry import REGISTRY
from tests.faults.outbox import MakeToy, Writer, all_published, connected, delivered
from tests.shared.toy import SERVICE, TOPIC, Toy

KEYS = 24
"""Enough for every partition to have some."""


@pytest.fixture
async def toy(make_toy: MakeToy) -> Toy:
    toy = make_toy()
    await toy.prepare()
    return toy


async def _publish(toy: Toy, app: Any, name: str, windows: int = 1) -> Writer:
    """One event a key and window, all of them published."""
    tenant, writer = uuid4(), Writer(app)
    async with toy.relay("one"):
        for _ in range(windows):
            await writer.write(*((tenant, f"{name}-{number}") for number in range(KEYS)))
            await all_published(toy)
    return writer


def _recognised() -> float:
    return REGISTRY.get_sample_value("cartwright_relay_restored_total") or 0.0


async def test_what_a_restored_database_publishes_is_news_and_it_is_recognised_once(toy: Toy) -> None:
    admin, before = await toy.as_admin(), _recognised()
    async with connected(toy, "app") as app:
        kept = await _publish(toy, app, "kept")
        was = await admin.fetchrow("SELECT timeline, win, lo::text, hi::text, last_n FROM outbox_cursor")
        await _publish(toy, app, "lost", windows=5)
        reached = await furthest(Broker(toy.settings), SERVICE, [TOPIC])
        assert _recognised() == before
        # As it comes back from a copy of its disk: it knows neither those events nor those windows.
        await admin.execute("DELETE FROM outbox_event")
        put = "UPDATE outbox_cursor SET timeline = $1, win = $2, hi = $3::pg_snapshot, last_n = $4, lo = pg_current_snapshot()"
        await admin.execute(put, was["timeline"], was["win"], was["hi"], was["last_n"])
        first = await _publish(toy, app, "after")
        assert _recognised() == before + 1
        again = await _publish(toy, app, "again")
        assert _recognised() == before + 1, "what is known is known"
    sequences, records = await delivered(toy)
    assert {key: sequences[key] for key in (*kept.written, *first.written, *again.written)} == {
        key: [1] for key in (*kept.written, *first.written, *again.written)
    }
    timelines = {int(dict(record.headers)["ce_relayposition"].rpartition(b"/")[2].split(b".")[0]) for record in records}
    assert timelines == {reached[0], reached[0] + 1}
    await admin.close()


async def test_what_others_write_to_the_topic_begins_no_timeline(toy: Toy) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap_servers)
    assert await furthest(Broker(toy.settings), SERVICE, [TOPIC, "no-such-topic.v1"]) == NOWHERE
    async with producer:
        for written in (b"toy/9999999999999999999.1.1", b"other/7.7.7", b"toy/one.two.three", b"\xff", b""):
            headers = [("ce_relayposition", written)]
            await producer.send_and_wait(toy.prefix + TOPIC, b"{}", headers=headers, partition=0)
        await producer.send_and_wait(toy.prefix + TOPIC, b"{}", partition=1)
    assert await furthest(Broker(toy.settings), SERVICE, [TOPIC]) == NOWHERE
