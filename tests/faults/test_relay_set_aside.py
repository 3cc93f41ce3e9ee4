"""Events that the relay cannot publish: set aside with those behind them, and decided upon by a person."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from libs.common.clock import new_id
from libs.common.errors import MalformedError
from libs.common.messaging.relay import parked
from tests.faults.outbox import INSERT, UNDECIDED, WAITING, Writer, all_published, connected, delivered, limit, until
from tests.shared.acting import by
from tests.shared.feeding import rows
from tests.shared.toy import TOPIC, Toy, seeded


@pytest.fixture
async def toy(make_toy: Callable[[], Toy]) -> Toy:
    toy = make_toy()
    await toy.prepare()
    return toy


async def test_a_refused_event_holds_back_only_its_own_key_and_a_replay_brings_everything_in_order(toy: Toy) -> None:
    chance = seeded(int(time.time()))
    await limit(toy, 30_000)
    tenants = [uuid4(), uuid4()]
    hot, other = (tenants[0], "hot"), (tenants[1], "other")
    keys = [hot, other, *((tenant, f"cool{number}") for tenant in tenants for number in range(8))]
    hot_key, other_key = (f"{tenant}:{name}".encode() for tenant, name in (hot, other))
    async with connected(toy, "app") as app, connected(toy, "relay") as operator:
        writer = Writer(app)

        async def write(times: int) -> None:
            for _ in range(times):
                await writer.write(*(chance.choice([hot, *keys]) for _ in range(chance.randrange(1, 60))))

        await write(10)
        good = {hot_key: writer.written[hot_key], other_key: 0}
        await writer.write(hot, payload_bytes=60_000)
        await write(10)
        good[other_key] = writer.written[other_key]
        await writer.write(other, payload_bytes=60_000)
        async with toy.relay("one"):
            await write(5)  # in later windows
            await all_published(toy)
            sequences, _ = await delivered(toy)
            expected = {key: [*range(1, good.get(key, count) + 1)] for key, count in writer.written.items()}
            assert sequences == expected
            waiting = await operator.fetch(WAITING)
            assert len(waiting) == sum(writer.written[key] - good[key] for key in good)
            for key in good:
                reasons = [row["reason"] for row in waiting if row["key"] == key]
                assert reasons == ["MessageSizeTooLarge", *["behind-set-aside"] * (len(reasons) - 1)]
            await _decide(toy, operator, other, hot)
            await limit(toy, 1_000_000)
            await parked.replay(operator, topic=TOPIC, key=hot_key.decode(), actor=by("ops"))
            while await operator.fetchval(f"SELECT EXISTS ({UNDECIDED} OR state = 'parked')"):
                await write(1)  # whatever is written while the relay puts the others back comes after them
            await write(3)
            await all_published(toy)
        sequences, records = await delivered(toy)
        actions = await rows(toy, "SELECT action FROM audit_entry WHERE client_id = 'ops' ORDER BY at")
    expected = {key: [*range(1, count + 1)] for key, count in writer.written.items()}
    expected[other_key].remove(good[other_key] + 1)
    assert sequences == expected
    print(f"{len(records)} records for {sum(map(len, sequences.values()))} events")
    assert [action for (action,) in actions] == ["discard-set-aside", "replay-set-aside", "replay-set-aside", "replay-set-aside"]


async def _decide(toy: Toy, operator: Any, other: tuple[UUID, str], hot: tuple[UUID, str]) -> None:
    """Discard one culprit and replay what waited behind it; replay the other too early, which changes nothing."""
    [culprit] = [row for row in await parked.listed(operator, tenant_id=other[0], limit=5) if row.reason != "behind-set-aside"]
    with pytest.raises(MalformedError):
        await parked.discard(operator, event_id=culprit.event_id, actor=by("ops"), reason=" ")
    assert await parked.discard(operator, event_id=culprit.event_id, actor=by("ops"), reason="nobody needs it") == 1
    assert await parked.discard(operator, event_id=culprit.event_id, actor=by("ops"), reason="twice") == 0
    await parked.replay(operator, topic=TOPIC, key=culprit.key, actor=by("ops"))
    waiting = "SELECT count(*) FROM outbox_parked WHERE state = 'parked' AND key = $1"
    before = await operator.fetchval(waiting, f"{hot[0]}:{hot[1]}".encode())
    await parked.replay(operator, topic=TOPIC, key=f"{hot[0]}:{hot[1]}", actor=by("ops"))
    await until(lambda: operator.fetchval(f"SELECT NOT EXISTS ({UNDECIDED})"))
    await all_published(toy)
    assert await operator.fetchval(waiting, f"{hot[0]}:{hot[1]}".encode()) == before


async def test_what_was_decided_long_ago_is_forgotten_and_what_waits_never_is(toy: Toy) -> None:
    park = """INSERT INTO outbox_parked (timeline, win, n, id, event_id, tenant_id, topic, key, headers, payload, state, reason,
        detail, decided_at) SELECT 1, 1, n, n, gen_random_uuid(), gen_random_uuid(), 'toy.v1', 'key', '', '', state, '', '',
        now() - age FROM unnest($1::text[], $2::interval[]) WITH ORDINALITY AS t(state, age, n)"""
    day = timedelta(days=1)
    given = [("discarded", 31 * day), ("replayed", 31 * day), ("discarded", 29 * day), ("parked", 400 * day)]
    async with connected(toy, "owner") as owner, connected(toy, "relay") as relay:
        await owner.execute(park, *zip(*given, strict=True))
        await relay.execute("DELETE FROM outbox_parked")  # all that it may
        assert await relay.fetchval("SELECT count(*) FROM outbox_parked") == 2
        await owner.execute(park.replace("1, 1, n", "1, 2, n"), *zip(*given, strict=True))
        async with toy.relay("one"):
            await until(lambda: relay.fetchval("SELECT count(*) = 4 FROM outbox_parked"))
        assert {row["state"] for row in await relay.fetch("SELECT state FROM outbox_parked")} == {"discarded", "parked"}


async def test_a_row_that_no_record_can_be_made_of_is_set_aside_and_stops_nobody(toy: Toy) -> None:
    tenant = uuid4()
    async with connected(toy, "app") as app, connected(toy, "relay") as relay:
        writer = Writer(app)
        await writer.write((tenant, "a"))
        await app.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenant}'")
        await app.execute(INSERT, [new_id()], [tenant], [TOPIC], [f"{tenant}:b".encode()], [b"[nonsense"], [b"{}"])
        await app.execute("COMMIT")
        await writer.write((tenant, "a"), (tenant, "b"))
        async with toy.relay("one"):
            await all_published(toy)
        assert [row["reason"] for row in await relay.fetch(WAITING)] == ["UnreadableHeaders", "behind-set-aside"]
        with suppress(asyncpg.InsufficientPrivilegeError):
            await relay.execute(INSERT, [new_id()], [tenant], [TOPIC], [b"k"], [b"[]"], [b"{}"])
            pytest.fail("the relay's role must not write events")
    sequences, _ = await delivered(toy)
    assert sequences == {f"{tenant}:a".encode(): [1, 2]}
