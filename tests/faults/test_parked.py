"""Poison, and what comes too early: it stops nobody else, waits in order, and leaves in order once it is cured."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.local.topics import Topic, create_topics
from libs.common.errors import ConflictError
from libs.common.messaging.batch import FENCE
from libs.common.messaging.inbox.lanes import HALT_SECONDS
from libs.common.messaging.repairs import LOCK_POSITION
from libs.common.telemetry import REGISTRY
from tests.shared.acting import by
from tests.shared.toy import TOPIC, Toy
from tests.shared.ward import SOMEBODY_WAITS, Ward

FEED = "catalog.v1"


@pytest.fixture
async def closed_ward(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> Ward:
    toy = Toy(admin_url, bootstrap_servers, fresh_prefix("ward"))
    await toy.prepare()
    return Ward(toy, uuid4())


@pytest.fixture
async def ward(closed_ward: Ward) -> AsyncIterator[Ward]:
    async with closed_ward.open() as ward:
        yield ward


async def test_other_keys_flow_and_a_replay_after_the_cure_restores_the_order(ward: Ward) -> None:
    ill, well = uuid4(), uuid4()
    ward.poisonous = {12}
    await ward.send((ill, 11), (ill, 12), (well, 1), (ill, 13), (ill, 14), (well, 2))
    await ward.until(lambda: _is(ward, {ill: (1, 11, 0), well: (2, 2, 0)}))
    assert await ward.set_aside() == [("parked", "ValueError"), ("queued", "behind-parked"), ("queued", "behind-parked")]
    poison, queued, _ = await ward.parked.search(limit=10)
    with pytest.raises(ConflictError, match="not-first"):
        await ward.parked.replay(queued["id"], actor=by("tester"))
    with pytest.raises(ConflictError, match="still-failing"):
        await ward.parked.replay(poison["id"], actor=by("tester"))
    assert (await ward.parked.show(poison["id"]))["attempts"] == 1
    ward.poisonous = set()
    assert len((await ward.parked.replay(poison["id"], actor=by("tester")))["done"]) == 3
    await ward.send((ill, 15))
    await ward.until(lambda: _is(ward, {ill: (5, 15, 0), well: (2, 2, 0)}))
    assert await ward.set_aside() == []
    assert [each["action"] for each in await ward.parked.actions(limit=5)] == ["parked.replay"] * 2  # also the one that failed


async def test_what_came_before_that_which_it_changes_is_cured_by_a_replay_of_both(
    ward: Ward,
) -> None:
    early, ill = uuid4(), uuid4()
    ward.second, ward.poisonous = {5, 8}, {7}
    await ward.send((early, 5), (early, 1), (early, 6), (ill, 8), (ill, 7))
    await ward.until(lambda: _count(ward, 5))
    [arrived, *_] = [each for each in await ward.parked.search(limit=10) if str(early) in each["key"]]
    [stuck, *_] = [each for each in await ward.parked.search(limit=10) if str(ill) in each["key"]]
    assert len((await ward.parked.replay(arrived["id"], actor=by("tester")))["done"]) == 3
    with pytest.raises(ConflictError, match="nothing-before"):
        await ward.parked.replay(stuck["id"], actor=by("tester"))
    assert [each["state"] for each in await ward.parked.search(limit=10)] == ["parked", "queued"], "half of it is not done"
    assert (await ward.tallies())[early][:2] == (3, 5)


async def test_discarding_the_poison_lets_what_waited_behind_it_go_on(ward: Ward) -> None:
    ill = uuid4()
    ward.poisonous = {2}
    await ward.send((ill, 1), (ill, 2), (ill, 3))
    await ward.until(lambda: _is(ward, {ill: (1, 1, 0)}))
    await ward.until(lambda: _count(ward, 2))
    [poison, _] = await ward.parked.search(limit=10)
    await ward.parked.discard(poison["id"], actor=by("tester"), reason="nobody can cure it")
    assert await ward.tallies() == {ill: (2, 3, 0)}
    discarded = await ward.parked.show(poison["id"])
    assert (discarded["state"], discarded["decided_by"], discarded["decision"]) == ("discarded", "tester", "nobody can cure it")


async def test_what_cannot_be_so_is_rejected_under_its_tenant_and_holds_up_nothing_however_much_there_is(ward: Ward) -> None:
    liar, well = uuid4(), uuid4()
    ward.unbelievable = {*range(2, 40)}
    await ward.send((liar, 1), *((liar, value) for value in range(2, 40)), (liar, 40), (well, 1))
    await ward.until(lambda: _is(ward, {liar: (2, 40, 0), well: (1, 1, 0)}))
    assert await ward.set_aside() == [("rejected", "lie")] * 38
    [first, *_] = await ward.parked.search(tenant_id=ward.tenant_id, limit=50)
    assert first["detail"] == "/value: 2 cannot be"
    with pytest.raises(ConflictError, match="still-failing"):
        await ward.parked.replay(first["id"], actor=by("tester"))
    assert (await ward.parked.show(first["id"]))["state"] == "rejected"


async def test_two_who_replay_the_same_message_at_once_have_it_decided_once(ward: Ward) -> None:
    liar, early = uuid4(), uuid4()
    ward.unbelievable, ward.poisonous = {2}, {7}
    await ward.send((liar, 2), (early, 7))
    await ward.until(lambda: _count(ward, 2))
    ward.unbelievable, ward.poisonous = set(), set()
    for message in await ward.parked.search(limit=10):
        both = asyncio.gather(*(ward.parked.replay(message["id"], actor=by("tester")) for _ in range(2)), return_exceptions=True)
        [refused] = [each for each in await both if isinstance(each, BaseException)]
        assert isinstance(refused, ConflictError)
        assert refused.code == "already-decided"
    assert await ward.tallies() == {liar: (1, 2, 0), early: (1, 7, 0)}


async def test_a_message_that_the_database_will_not_take_is_found_in_its_batch_and_holds_up_its_own_key_alone(ward: Ward) -> None:
    culprit, well = uuid4(), [uuid4() for _ in range(10)]
    ward.overflowing = {2}
    others = [(counter, 1) for counter in well]
    await ward.send((culprit, 1), *others[:5], (culprit, 2), *others[5:], (culprit, 3))
    await ward.until(lambda: _is(ward, {culprit: (1, 1, 0), **dict.fromkeys(well, (1, 1, 0))}))
    assert await ward.set_aside() == [("parked", "database"), ("queued", "behind-parked")]
    await ward.send((culprit, 4))
    await ward.until(lambda: _count(ward, 3))
    [refused, *_] = await ward.parked.search(limit=10)
    with pytest.raises(ConflictError, match="still-failing"):
        await ward.parked.replay(refused["id"], actor=by("tester"))
    ward.overflowing = set()
    assert len((await ward.parked.replay(refused["id"], actor=by("tester")))["done"]) == 3
    assert (await ward.tallies())[culprit] == (4, 4, 0)


async def test_when_most_of_a_batch_fails_the_consumer_stands_still_parks_nothing_and_looks_again_now_and_then(
    closed_ward: Ward,
) -> None:
    counters = [uuid4() for _ in range(40)]
    closed_ward.poisonous = {1}
    await closed_ward.send(*((counter, 1) for counter in counters))
    async with closed_ward.open() as ward:
        await ward.until(lambda: _stands_still(ward))
        before = ward.decided
        await asyncio.sleep(HALT_SECONDS / 2)  # meanwhile nobody looks, or once
        assert ward.decided - before <= len(counters)
        await _halts_and_recovers(ward, counters)


async def test_what_is_stored_does_not_stand_still_with_the_rest_of_its_topic(closed_ward: Ward) -> None:
    first, second = [uuid4() for _ in range(12)], [uuid4() for _ in range(12)]
    closed_ward.overflowing = {1}
    await closed_ward.send(*((counter, 1) for counter in first), origin="first", partition=0)
    await closed_ward.send(*((counter, 1) for counter in second), origin="second", partition=1)
    async with closed_ward.open() as ward:
        await ward.until(lambda: _stands_still(ward))  # at the twentieth: all of one partition is parked by then
        ward.overflowing = set()
        await ward.until(lambda: _goes_on(ward))
        assert len(await ward.tallies()) + len(await ward.set_aside()) == len([*first, *second])


async def test_a_group_tells_that_a_topic_of_it_stands_still_whatever_becomes_of_its_others(closed_ward: Ward) -> None:
    closed_ward.topics, closed_ward.poisonous = [TOPIC, FEED], {1}
    feed = Topic(FEED, "others", partitions=1, replication=1, settings={})
    await create_topics(closed_ward.toy.settings.kafka_bootstrap_servers, [feed], closed_ward.toy.prefix)
    counters = [uuid4() for _ in range(40)]
    await closed_ward.send(*((counter, 1) for counter in counters))
    async with closed_ward.open() as ward:
        await ward.until(lambda: _stands_still(ward))
        await ward.send((uuid4(), 7), topic=FEED)
        await ward.until(lambda: _has_read(ward, FEED))
        assert REGISTRY.get_sample_value("cartwright_inbox_halted", {"group": ward.inbox.group}) == 1
        await _halts_and_recovers(ward, counters)
        await ward.until(lambda: _goes_on(ward))
        assert REGISTRY.get_sample_value("cartwright_inbox_halted", {"group": ward.inbox.group}) == 0


async def test_what_comes_too_early_waits_with_what_follows_it_and_delays_nobody(ward: Ward) -> None:
    early, well = uuid4(), uuid4()
    ward.too_early = {2}
    await ward.send((early, 1), (early, 2), (well, 1), (early, 3))
    await ward.until(lambda: _is(ward, {early: (1, 1, 0), well: (1, 1, 0)}))
    assert await ward.set_aside() == [("waiting", "unknown-tenant"), ("queued", "behind-parked")]
    await ward.inbox.waiting.look()
    assert await ward.set_aside() == [("waiting", "unknown-tenant"), ("queued", "behind-parked")]  # nothing has come yet
    await ward.send((early, 4), (well, 7))
    await ward.until(lambda: _is(ward, {early: (1, 1, 0), well: (2, 7, 0)}))
    ward.too_early = set()
    await ward.inbox.waiting.look()
    assert await ward.tallies() == {early: (4, 4, 0), well: (2, 7, 0)}
    assert await ward.set_aside() == []


async def test_what_was_waited_for_in_vain_is_parked_and_can_be_replayed(closed_ward: Ward) -> None:
    closed_ward.too_early, closed_ward.grace_seconds = {1}, 0.0
    early = uuid4()
    async with closed_ward.open() as ward:
        await ward.send((early, 1), (early, 2))
        await ward.until(lambda: _count(ward, 2))
        await ward.inbox.waiting.look()
        assert await ward.set_aside() == [("parked", "unknown-tenant"), ("queued", "behind-parked")]
        ward.too_early = set()
        await ward.inbox.waiting.look()
        assert await ward.tallies() == {}  # it waits no more, it waits for somebody
        [parked, _] = await ward.parked.search(limit=10)
        await ward.parked.replay(parked["id"], actor=by("tester"))
        assert await ward.tallies() == {early: (2, 2, 0)}


async def test_of_what_arrived_that_the_database_will_not_take_is_parked_alone(ward: Ward) -> None:
    early = [uuid4() for _ in range(6)]
    ward.too_early = {1, 5}
    await ward.send(*((counter, 1) for counter in early[1:]), (early[0], 5))
    await ward.until(lambda: _count(ward, 6))
    ward.too_early, ward.overflowing = set(), {5}
    await ward.inbox.waiting.look()
    assert await ward.tallies() == dict.fromkeys(early[1:], (1, 1, 0))
    assert await ward.set_aside() == [("parked", "database")]


async def test_a_position_that_no_column_takes_is_rejected_and_the_partition_goes_on(ward: Ward) -> None:
    ill, well = uuid4(), uuid4()
    await ward.send((well, 1))
    await ward.send((ill, 1), origin="to\0y")
    await ward.send((well, 2))
    await ward.until(lambda: _is(ward, {well: (2, 2, 0)}))
    assert [state for state, _ in await ward.set_aside()] == ["rejected"]


async def test_what_is_parked_while_a_batch_waits_for_the_lock_holds_up_its_key_in_that_batch(ward: Ward) -> None:
    ill, well = uuid4(), uuid4()
    await ward.send((well, 1))
    await ward.until(lambda: _is(ward, {well: (1, 1, 0)}))
    place = ward.inbox.group, ward.toy.prefix + TOPIC
    admin = await ward.toy.as_admin()
    async with admin.transaction():
        await admin.execute(LOCK_POSITION, *place, 0)
        await ward.send((ill, 2), (well, 2))
        await ward.until(lambda: admin.fetchval(SOMEBODY_WAITS))
        await admin.execute(
            """INSERT INTO inbox_parked (consumer, topic, part, off, key, headers, payload, state, reason, detail, tenant_id)
            VALUES ($1, $2, 0, 0, $3, '[]', '', 'parked', 'somebody-else-had-the-lock', '', $4)""",
            *(*place, f"{ward.tenant_id}:{ill}".encode(), ward.tenant_id),
        )
    await admin.close()
    await ward.until(lambda: _is(ward, {well: (2, 2, 0)}))
    assert await ward.set_aside() == [("parked", "somebody-else-had-the-lock"), ("queued", "behind-parked")]


async def test_what_other_tenants_have_set_aside_is_not_read_however_much_it_is(ward: Ward) -> None:
    admin = await ward.toy.as_admin()
    await admin.execute(
        """INSERT INTO inbox_parked (consumer, topic, part, off, key, headers, payload, state, reason, detail, tenant_id)
        SELECT $1, $2, 0, 1000000 + n, n::text::bytea, '[]', '', 'waiting', 'unknown-tenant', '', gen_random_uuid()
        FROM generate_series(1, 20000) n""",
        *(ward.inbox.group, ward.toy.prefix + TOPIC),
    )
    await admin.execute("ANALYZE inbox_parked")
    await admin.close()
    app = await asyncpg.connect(ward.toy.url("app"))
    try:
        await app.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{ward.tenant_id}'")
        about = ward.inbox.group, [ward.toy.prefix + TOPIC], [0], [ward.tenant_id]
        explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {FENCE}"
        _, [plan] = [json.loads(await app.fetchval(explained, *about)) for _ in range(2)]  # the first reads the catalogue too
    finally:
        await app.close()
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 100, "20,000 rows are some thousand blocks"


async def _stands_still(ward: Ward) -> bool:
    return ward.inbox.halted is not None


async def _goes_on(ward: Ward) -> bool:
    return ward.inbox.halted is None


async def _has_read(ward: Ward, topic: str) -> bool:
    admin = await ward.toy.as_admin()
    stored = "SELECT sum(next_offset) FROM inbox_position WHERE consumer = $1 AND topic = $2"
    read = await admin.fetchval(stored, ward.inbox.group, ward.toy.prefix + topic)
    await admin.close()
    return bool(read)


async def _halts_and_recovers(ward: Ward, counters: list[UUID]) -> None:
    await ward.until(lambda: _stands_still(ward))
    ward.poisonous = set()
    await ward.until(lambda: _is(ward, dict.fromkeys(counters, (1, 1, 0))))
    assert await ward.set_aside() == []


async def _is(ward: Ward, expected: dict[UUID, tuple[int, int, int]]) -> bool:
    return await ward.tallies() == expected


async def _count(ward: Ward, messages: int) -> bool:
    return len(await ward.set_aside()) == messages
