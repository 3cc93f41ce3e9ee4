"""The relay when something is wrong: events refused, backlogs, deaths, long transactions, a broker that is away."""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import pytest

from libs.common.clock import new_id
from libs.common.messaging.attributes import parse_position
from libs.common.messaging.relay.cursor import Cursor
from libs.common.messaging.relay.loop import STANDBY_POLL_SECONDS
from libs.common.messaging.relay.window import chunks
from tests.faults.outbox import INSERT, ROOT, MakeToy, Writer, all_published, connected, delivered, until
from tests.shared.toy import TOPIC, Toy


@pytest.fixture
async def toy(make_toy: Callable[[], Toy]) -> Toy:
    toy = make_toy()
    await toy.prepare()
    return toy


async def test_while_one_tenant_has_200_000_events_waiting_another_tenants_event_is_among_the_first(toy: Toy) -> None:
    loud, quiet, count = uuid4(), uuid4(), 200_000
    async with connected(toy, "app") as app:
        await app.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{loud}'")
        await app.execute(
            """INSERT INTO outbox_event (event_id, tenant_id, topic, key, headers, payload)
            SELECT gen_random_uuid(), $1::uuid, $2, convert_to($1::uuid || ':' || n % 5000, 'UTF8'),
                convert_to('ce_sequence' || chr(10) || (n / 5000 + 1), 'UTF8'), repeat('x', 300)::bytea
            FROM generate_series(0, $3::int - 1) AS n""",
            *(loud, TOPIC, count),
            timeout=120,
        )
        await app.execute("COMMIT")
        writer = Writer(app)
        await writer.write((quiet, "early"))
        async with toy.relay("one"):
            async with connected(toy, "relay") as relay:
                await until(lambda: relay.fetchval("SELECT win > 0 FROM outbox_cursor"))
            await writer.write((quiet, "late"))
            committed = time.time()
            await all_published(toy)
    sequences, records = await delivered(toy)
    assert len(sequences) == 5_002
    assert all(found == [*range(1, len(found) + 1)] for found in sequences.values())
    assert sum(map(len, sequences.values())) == count + 2
    by_key = {record.key: record for record in records}
    early, late = by_key[f"{quiet}:early".encode()], by_key[f"{quiet}:late".encode()]
    first, last = (pick(record.timestamp for record in records if record.key != late.key) / 1000 for pick in (min, max))
    waited = late.timestamp / 1000 - committed
    print(
        f"backlog of {count} published in {last - first:.2f} s; an event inside the window left after "
        f"{early.timestamp / 1000 - first:.3f} s, one committed after it had opened waited {waited:.2f} s"
    )
    (window, ordinal), (next_window, _) = _position(early), _position(late)
    assert ordinal <= 2
    assert next_window == window + 1, "what comes after a window has opened waits for that window and for no other"


def _position(record: Any) -> tuple[int, int]:
    """A record's window, and its place in it."""
    _, window, ordinal = dict(record.headers)["ce_relayposition"].rpartition(b"/")[2].split(b".")
    return int(window), int(ordinal)


async def test_rows_that_came_with_a_window_are_read_again_at_the_same_places_by_whoever_finds_it_open(toy: Toy) -> None:
    tenants = [uuid4() for _ in range(3)]
    async with connected(toy, "app") as app, connected(toy, "app") as long, connected(toy, "relay") as relay:
        writer = Writer(app)

        async def session() -> Any:
            return relay

        async def opened(cursor: Cursor) -> list[tuple[int, int]]:
            window = await cursor.open()
            assert window is not None
            cursor.done()
            came = [(row["n"], row["id"]) for row in window.rows or ()]
            await writer.write((tenants[0], "too late"))
            heir = Cursor(relay, relay, "whoever is alive")
            await heir.lease()
            assert heir.window is not None
            assert [[(row["n"], row["id"]) for row in rows] async for rows in chunks(heir.window, session)] == [came]
            return came

        cursor = Cursor(relay, relay, "whoever is alive")
        await cursor.lease()
        assert await cursor.open() is None, "there is nothing yet"
        await long.execute(f"BEGIN; SET LOCAL cartwright.tenant_ids = '{tenants[2]}'")
        await long.execute(INSERT, [new_id()], [tenants[2]], [TOPIC], [b"slow"], [b"a\n1"], [b"{}"])
        await writer.write(*((tenant, name) for name in "abcd" for tenant in tenants[:2]), (tenants[0], "e"), (tenants[0], "f"))
        first = await opened(cursor)
        await long.execute("COMMIT")
        second = await opened(cursor)
        assert await cursor.open() is not None
        cursor.done()
        assert await cursor.open() is None, "all of it was in the last window"
    assert (len(first), len(second)) == (10, 2), "the slow one's row and what was too late for the first window"
    assert second[0][1] < first[0][1], "the slow one took its id before all others"


async def test_a_standby_takes_over_from_a_killed_relay_however_long_its_lease_and_at_once_from_one_that_stops(toy: Toy) -> None:
    tenant = uuid4()
    script = (
        "import asyncio, sys\nfrom tests.shared.toy import Toy\n"
        "async def main():\n    async with Toy(*sys.argv[1:4]).relay('doomed') as task:\n        await task\n"
        "asyncio.run(main())"
    )
    arguments = (toy.admin_url, toy.settings.kafka_bootstrap_servers, toy.prefix)
    async with connected(toy, "app") as app, connected(toy, "relay") as reader:
        writer = Writer(app)
        owned = "SELECT owner FROM outbox_cursor WHERE lease_until > clock_timestamp()"

        async def owned_by(name: str) -> bool:
            return bool(await reader.fetchval(owned) == name)

        doomed = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, *arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        await until(lambda: owned_by("doomed"))
        async with toy.relay("standby"):
            for number in range(200):
                await writer.write((tenant, f"k{number % 7}"))
            assert await owned_by("doomed")
            doomed.send_signal(signal.SIGSTOP)
            await reader.execute("UPDATE outbox_cursor SET lease_until = clock_timestamp() + interval '1 day'")
            await asyncio.sleep(2 * STANDBY_POLL_SECONDS)
            assert await owned_by("doomed"), "a process that only stands still has its lease"
            doomed.send_signal(signal.SIGKILL)
            await doomed.wait()
            await writer.write((tenant, "k0"))
            taken = await until(lambda: owned_by("standby"))
            await all_published(toy)
            async with toy.relay("third"):
                await asyncio.sleep(1.5)
                assert await owned_by("standby")
        assert await reader.fetchval(owned) is None, "who stops gives the lease back"
        async with toy.relay("fourth"):
            given = await until(lambda: owned_by("fourth"))
    print(f"taken over {taken:.2f} s after a kill, {given:.2f} s after a clean stop")
    sequences, _ = await delivered(toy)
    assert sequences == {key: [*range(1, count + 1)] for key, count in writer.written.items()}


async def test_the_outbox_stays_small_under_load_also_beside_a_transaction_that_does_not_end(make_toy: MakeToy) -> None:
    toy = make_toy()
    await toy.prepare(slot_seconds=1)
    tenant, sizes = uuid4(), []
    async with connected(toy, "app") as app, connected(toy, "app") as long, connected(toy, "owner") as owner:
        await long.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
        writer, emptied = Writer(app), 0
        async with toy.relay("one"):
            for number in itertools.count():
                await writer.write(*((tenant, f"k{number % 50}") for _ in range(20)))
                if number % 25 == 0:
                    sizes.append(await owner.fetchval("SELECT count(*) FROM outbox_event"))
                    emptied += sizes[-1] < sizes[-2] if len(sizes) > 1 else 0
                # It goes on being emptied: what is in it is of the last slots, however long this takes.
                if emptied >= 5 and max(sizes) < sum(writer.written.values()) / 2:
                    break
            await all_published(toy)
        await long.execute("ROLLBACK")
    written = sum(writer.written.values())
    print(f"{written} events written, at most {max(sizes)} in the outbox, {sizes[-1]} at the end")
    assert max(sizes) < written / 2
    sequences, _ = await delivered(toy)
    assert sequences == {key: [*range(1, count + 1)] for key, count in writer.written.items()}


async def test_a_window_keeps_the_timeline_it_was_opened_under_so_that_a_promotion_repeats_nothing(toy: Toy) -> None:
    tenant = uuid4()
    async with connected(toy, "app") as app, connected(toy, "owner") as owner:
        writer = Writer(app)
        await writer.write((tenant, "a"))
        await owner.execute("UPDATE outbox_cursor SET hi = pg_current_snapshot(), win = win + 1, timeline = 0")
        async with toy.relay("one"):
            await all_published(toy)
            await writer.write((tenant, "a"))
            await all_published(toy)
    _, records = await delivered(toy)
    positions: Sequence[Any] = [parse_position(dict(record.headers)["ce_relayposition"].decode())[1] for record in records]
    assert [position[:2] for position in positions] == [(0, 1), (1, 2)]
