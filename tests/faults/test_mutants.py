"""The tests are tested: each deliberate bug must turn the count red, in a scene that leaves the true kernel clean.

A scene plays the faults that the bug cannot stand, most of them at a gate, so that they strike where they must. It is
played twice at once, by the kernel as it is and by the mutant.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer

from libs.common.messaging.broker import Broker
from libs.common.messaging.envelope import Reader
from libs.common.messaging.headers import unpack
from libs.common.messaging.relay.window import CHUNK
from libs.common.messaging.repairs import ParkedMessages
from tests.faults.chaos.actors import POLL_GATE, write_slowly
from tests.faults.chaos.stage import CURSOR_GATE, TALLY_GATE, Key, Reckoning, Scenario, Stage, Troupe
from tests.faults.mutants import MUTANTS, Mutant
from tests.shared.acting import by
from tests.shared.toy import GROUP, HANDLERS, TOPIC, command

SETTLE_SECONDS, PATIENCE_SECONDS, LONG_PATIENCE_SECONDS = 120, 6, 30
"""So long in all, and so long while nothing moves: a mutant's loss shows by that, and the true kernel may be held up."""
ZOMBIE_SECONDS = 11
"""The session of a member of the group ends after ten."""
RELIEF_SECONDS = 2
"""For an actor to come to its next wait, which nothing tells of: one that has not would hide what its mutant does."""
PUBLISHED = "EXISTS (SELECT FROM outbox_cursor WHERE win > 0 AND hi IS NULL)"


def _keys(count: int, tenant: UUID | None = None) -> list[Key]:
    tenant = tenant or uuid4()
    return [(tenant, uuid4()) for _ in range(count)]


async def something_is_committed_while_a_window_is_sent(stage: Stage, troupe: Troupe) -> Sequence[Key]:
    keys = _keys(CHUNK // 20)
    await _idle_relay(stage, troupe)
    async with stage.shell() as shell, stage.closed(CURSOR_GATE) as gate:
        await stage.bump(shell, *keys * 20)  # a whole chunk: the cursor moves before the window is closed
        await gate.waiter()
        await stage.bump(shell, keys[0])
    await troupe.enter("consume")
    return keys


async def a_transaction_commits_after_later_ones_are_published(stage: Stage, troupe: Troupe) -> Sequence[Key]:
    [slow, quick] = keys = _keys(2)
    await troupe.enter("relay")
    async with stage.shell() as shell:
        async with shell.database.transaction([slow[0]]) as connection:
            _, aggregates = await shell.decide(connection, [command(*slow)])
            await shell.store(connection, aggregates)
            await stage.bump(shell, quick)
            await stage.until(PUBLISHED)
        shell.committed(aggregates)
        await stage.until("NOT EXISTS (SELECT FROM outbox_cursor WHERE hi IS NOT NULL)")
    await troupe.enter("consume")
    return keys


async def an_older_transaction_writes_to_a_key_last(stage: Stage, troupe: Troupe) -> Sequence[Key]:
    [key] = _keys(1)
    async with stage.shell() as shell:
        await write_slowly(shell, command(*key), meanwhile=stage.bump(shell, key))
    await troupe.enter("relay")
    await troupe.enter("consume")
    return [key]


async def a_transaction_is_rolled_back(_stage: Stage, troupe: Troupe) -> Sequence[Key]:
    [key] = keys = _keys(1)
    await troupe.finished(await troupe.enter("roll_back", keys=[list(key)]))
    await troupe.enter("relay")
    await troupe.enter("consume")
    return keys


async def a_relay_dies_between_send_and_cursor_and_another_wakes_up(stage: Stage, troupe: Troupe) -> Sequence[Key]:
    [key] = keys = _keys(1)
    # A lease so long that the zombie does not renew it when it wakes, which would tell it of the other.
    zombie = await _idle_relay(stage, troupe, owner="twins", lease_seconds=300)
    troupe.stop(zombie)
    async with stage.shell() as shell, stage.closed(CURSOR_GATE) as gate:
        await stage.bump(shell, key)
        other = await troupe.enter("relay", owner="twins")
        waiter = await gate.waiter()
        assert troupe.whose(waiter) == other
        await troupe.kill(other)
        await gate.cut(waiter)
    troupe.resume(zombie)
    await stage.until(PUBLISHED)
    await troupe.enter("consume")
    return keys


async def slots_pass_while_no_relay_is_alive(stage: Stage, troupe: Troupe) -> Sequence[Key]:
    keys = _keys(3)
    async with stage.shell() as shell:
        await stage.bump(shell, *keys)
    await asyncio.sleep(2.2)  # slots of one second: this one and the last are left alone
    await stage.value("outbox_rotate()")
    await troupe.enter("relay")
    await troupe.enter("consume")
    return keys


async def a_transaction_of_the_inbox_is_torn(stage: Stage, troupe: Troupe) -> Sequence[Key]:
    [key] = keys = _keys(1)
    await troupe.enter("relay")
    async with stage.shell() as shell, stage.closed(TALLY_GATE) as gate:
        await troupe.enter("consume")
        await stage.bump(shell, key)
        await gate.cut(await gate.waiter())
    return keys


async def a_member_is_stopped_past_its_session(stage: Stage, troupe: Troupe) -> Sequence[Key]:
    """What it had polled has no position, for against what has one the watermark would protect too."""
    [key] = keys = _keys(1)
    zombie = await troupe.enter("consume", halts=True)
    async with stage.shell() as shell:
        await stage.bump(shell, key)
    async with stage.closed(POLL_GATE) as gate:
        await _send_by_hand(stage)
        await gate.waiter()
        troupe.stop(zombie)
    await troupe.enter("consume")
    await asyncio.sleep(ZOMBIE_SECONDS)
    await stage.until("EXISTS (SELECT FROM tally)")
    troupe.resume(zombie)
    await asyncio.sleep(RELIEF_SECONDS)
    await troupe.enter("relay")
    return keys


async def one_poll_holds_many_partitions(stage: Stage, troupe: Troupe) -> Sequence[Key]:
    keys = _keys(200)
    async with stage.shell() as shell:
        await stage.bump(shell, *keys)
    await troupe.enter("relay")
    await stage.until(PUBLISHED)
    await troupe.enter("consume")
    return keys


async def a_message_is_poison_and_cured_later(stage: Stage, troupe: Troupe) -> Sequence[Key]:
    [key] = keys = _keys(1)
    async with stage.shell() as shell:
        await stage.bump(shell, key, key, key)
        await troupe.enter("relay")
        await troupe.enter("consume", poison=2)
        await stage.until("EXISTS (SELECT FROM inbox_parked)")
        broker = Broker(stage.settings)
        parked = ParkedMessages(shell, Reader(HANDLERS.events(), topic_prefix=broker.prefix), broker.prefix + GROUP)
        [poison, *_] = await parked.search()
        await parked.replay(poison["id"], actor=by("tester"))
    return keys


SCENES: Mapping[str, tuple[Scenario, str]] = {
    "the window closes at now instead of where it ended": (something_is_committed_while_a_window_is_sent, "lost"),
    "the cursor is a watermark over ids": (a_transaction_commits_after_later_ones_are_published, "lost"),
    "a window forgets what was in progress when it began": (a_transaction_commits_after_later_ones_are_published, "lost"),
    "events are ordered by their transaction": (an_older_transaction_writes_to_a_key_last, "violations"),
    "events are published outside the transaction": (a_transaction_is_rolled_back, "surplus"),
    "the cursor moves without comparing": (a_relay_dies_between_send_and_cursor_and_another_wakes_up, "surplus"),
    "a slot is emptied when it is committed instead of published": (slots_pass_while_no_relay_is_alive, "lost"),
    "offsets are stored before the effects": (a_transaction_of_the_inbox_is_torn, "lost"),
    "there is no fence": (a_member_is_stopped_past_its_session, "surplus"),
    "the watermark is of all partitions together": (one_poll_holds_many_partitions, "lost"),
    "the watermark lets the last message pass twice": (
        a_relay_dies_between_send_and_cursor_and_another_wakes_up,
        "surplus",
    ),
    "a failed batch is acknowledged": (a_transaction_of_the_inbox_is_torn, "lost"),
    "later messages of a parked key do not queue": (a_message_is_poison_and_cured_later, "violations"),
}
"""For each bug the scene that shows it, and what it shows as."""


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_the_line_that_a_mutant_changes_is_still_there_once(mutant: Mutant) -> None:
    assert mutant.changed in mutant.applied(mutant.path.read_text())


def test_every_mutant_has_its_scene() -> None:
    assert set(SCENES) == set(MUTANTS)


@pytest.mark.parametrize("name", SCENES)
async def test_the_count_turns_red_for(
    name: str, admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str], tmp_path: Path
) -> None:
    scene, symptom = SCENES[name]

    async def played(what: str, *module: str) -> Reckoning:
        stage = Stage(admin_url, bootstrap_servers, fresh_prefix(what))
        patience = PATIENCE_SECONDS if module else LONG_PATIENCE_SECONDS
        return await _played(stage, scene, tmp_path / f"{what}.log", module, patience)

    control, mutated = await asyncio.gather(played("control"), played("mutant", "tests.faults.mutants", name))
    print(f"{name}: {mutated}")
    assert control.is_clean, f"the true kernel: {control}"
    assert getattr(mutated, symptom) > 0, f"the mutant passed: {mutated}"


async def _played(stage: Stage, scene: Scenario, log: Path, module: Sequence[str], patience: float) -> Reckoning:
    async with Troupe.hired(stage, log, *module) as troupe:
        await troupe.finished(await troupe.enter("prepare", slot_seconds=1))
        await stage.build_gates()
        keys = await scene(stage, troupe)
        reckoning = await stage.settled(keys, patience=patience, within=SETTLE_SECONDS)
        assert not troupe.deserters(), troupe.last_words()
    return reckoning


async def _idle_relay(stage: Stage, troupe: Troupe, **part: Any) -> int:
    """A relay that has the lease, and looks for itself whether there is anything to do."""
    relay = await troupe.enter("relay", listens=False, **part)
    await stage.until("EXISTS (SELECT FROM outbox_cursor WHERE owner IS NOT NULL)")
    await asyncio.sleep(RELIEF_SECONDS)
    return relay


async def _send_by_hand(stage: Stage) -> None:
    """Send what is in the outbox as a publisher without positions would, and leave nothing for a relay."""
    async with stage.administrator() as administrator:
        rows = await administrator.fetch("SELECT key, headers, payload FROM outbox_event ORDER BY id")
        await administrator.execute("TRUNCATE outbox_event")
    producer = AIOKafkaProducer(bootstrap_servers=stage.settings.kafka_bootstrap_servers)
    await producer.start()
    for row in rows:
        await producer.send_and_wait(stage.prefix + TOPIC, row["payload"], row["key"], headers=unpack(row["headers"]))
    await producer.stop()
