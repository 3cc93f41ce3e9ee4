"""The broker's disk is gone: what Kafka has by now is another log, and nobody takes it for the one he knew."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.kafka.broker import EmbeddedKafka
from deploy.local.topics import Topic, create_topics
from libs.common.errors import UnavailableError
from libs.common.messaging.broker import Broker
from libs.common.messaging.inbox import Inbox, kafka_broker
from libs.common.messaging.inbox.stored import ANSWER_SECONDS
from libs.common.messaging.shell import Shell
from tests.shared.acting import by
from tests.shared.feeding import applied, bump, own_kafka, partitions, producer_at, rows, send, toy_at, until
from tests.shared.toy import GROUP, PARTITIONS, TOPIC, Toy

__all__ = ["own_kafka"]


async def _lose(kafka: EmbeddedKafka, tmp_path: Path, toy: Toy) -> None:
    """Lose the broker with its disk, and begin anew with another."""
    await kafka.kill()
    await asyncio.to_thread(shutil.rmtree, tmp_path / "home" / "kafka")
    await kafka.start()
    topic = Topic(TOPIC, "toy", partitions=PARTITIONS, replication=1, settings={})
    await create_topics(kafka.bootstrap_servers, [topic], toy.prefix)


async def _fill(toy: Toy, tenant: UUID, counter: UUID, count: int) -> None:
    async with producer_at(toy) as producer:
        for place in partitions(toy):
            await send(producer, place, [bump(tenant, counter)] * count)


async def _is_noticed(inbox: Inbox) -> bool:
    async def replaced() -> Any:
        return inbox.replaced

    return bool(await until(replaced, bool))


async def _states(inbox: Inbox) -> set[str]:
    """What is said of the positions. A broker that has just started may not be able to answer yet."""
    try:
        return {each["state"] for each in await inbox.stored[0].listing()}
    except UnavailableError:
        return set()


@pytest.mark.parametrize("adopted_by", ["operator", "setting"])
async def test_a_member_that_starts_on_another_log_reads_it_only_once_it_is_adopted(
    admin_url: str, own_kafka: EmbeddedKafka, tmp_path: Path, fresh_prefix: Callable[[str], str], adopted_by: str
) -> None:
    tenant, counter = uuid4(), uuid4()
    async with toy_at(admin_url, own_kafka.bootstrap_servers, fresh_prefix("lost")) as toy:
        before, after = 5, 3
        await _fill(toy, tenant, counter, before)
        async with toy.shell() as shell:
            async with toy.member(shell):
                assert await applied(toy, tenant, before * PARTITIONS) == before * PARTITIONS
            await _lose(own_kafka, tmp_path, toy)
            # Fewer than were read before: by their offsets alone all of them are old.
            await _fill(toy, tenant, counter, after)
            expected = (before + after) * PARTITIONS
            if adopted_by == "setting":
                async with Member(toy, shell, adopts=True) as inbox:
                    assert await applied(toy, tenant, expected) == expected
                    assert inbox.replaced is None
                return
            async with Member(toy, shell, adopts=False) as inbox:
                assert await _is_noticed(inbox)
                await asyncio.sleep(2)
                assert (await toy.totals([tenant]))["applied"] == before * PARTITIONS
                assert {each["state"] for each in await inbox.stored[0].listing()} == {"other-log"}
                adopted = await inbox.stored[0].adopt(actor=by("somebody"), reason="the disk is gone")
                assert [(each["was"], each["next_offset"]) for each in adopted] == [(before, 0)] * PARTITIONS
                assert await applied(toy, tenant, expected) == expected
                assert inbox.replaced is None
                assert await inbox.stored[0].adopt(actor=by("somebody"), reason="again") == []
        audited = await rows(toy, "SELECT client_id, action, object_id FROM audit_entry ORDER BY object_id")
        group, topic = toy.prefix + GROUP, toy.prefix + TOPIC
        assert audited == [("somebody", "position.adopt", f"{group}:{topic}:{each}") for each in range(PARTITIONS)]


async def test_a_member_under_which_the_log_is_lost_says_so_and_goes_on_when_told_to(
    admin_url: str, own_kafka: EmbeddedKafka, tmp_path: Path, fresh_prefix: Callable[[str], str]
) -> None:
    tenant, counter, count = uuid4(), uuid4(), 3
    async with (
        toy_at(admin_url, own_kafka.bootstrap_servers, fresh_prefix("under")) as toy,
        toy.shell() as shell,
        Member(toy, shell, adopts=False) as inbox,
    ):
        await _fill(toy, tenant, counter, count)
        assert await applied(toy, tenant, count * PARTITIONS) == count * PARTITIONS
        await _lose(own_kafka, tmp_path, toy)
        assert await _is_noticed(inbox)
        await _fill(toy, tenant, counter, count)
        await until(lambda: _states(inbox), lambda found: found == {"other-log"})
        await inbox.stored[0].adopt(actor=by("somebody"), reason="the disk is gone")
        assert await applied(toy, tenant, 2 * count * PARTITIONS) == 2 * count * PARTITIONS


async def test_a_member_whose_topic_was_away_and_is_made_anew_says_so(
    admin_url: str, own_kafka: EmbeddedKafka, fresh_prefix: Callable[[str], str]
) -> None:
    tenant, counter = uuid4(), uuid4()
    async with (
        toy_at(admin_url, own_kafka.bootstrap_servers, fresh_prefix("anew")) as toy,
        toy.shell() as shell,
        Member(toy, shell, adopts=False) as inbox,
    ):
        await _fill(toy, tenant, counter, 1)
        assert await applied(toy, tenant, PARTITIONS) == PARTITIONS
        admin = AIOKafkaAdminClient(bootstrap_servers=own_kafka.bootstrap_servers)
        await admin.start()
        await admin.delete_topics([toy.prefix + TOPIC])
        await admin.close()

        async def held() -> int:
            return len(inbox.members[0]._positions.stored)

        assert await until(held, lambda found: not found) == 0, "there is nothing to read"
        await create_topics(
            own_kafka.bootstrap_servers, [Topic(TOPIC, "toy", partitions=PARTITIONS, replication=1, settings={})], toy.prefix
        )
        assert await _is_noticed(inbox)


@pytest.fixture
async def inbox(admin_url: str, own_kafka: EmbeddedKafka, fresh_prefix: Callable[[str], str]) -> AsyncIterator[Inbox]:
    """A member's, that reads logs which it knows."""
    async with (
        toy_at(admin_url, own_kafka.bootstrap_servers, fresh_prefix("knows")) as toy,
        toy.shell() as shell,
        Member(toy, shell, adopts=False) as inbox,
    ):
        await until(lambda: _states(inbox), lambda found: found == {"known-log"})
        yield inbox


async def test_who_asks_for_positions_while_the_broker_hangs_is_told_so_before_giving_up(
    inbox: Inbox, own_kafka: EmbeddedKafka
) -> None:
    assert own_kafka.pid
    os.kill(own_kafka.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(3 * ANSWER_SECONDS):
            with pytest.raises(UnavailableError, match="does not say which logs"):
                await inbox.stored[0].listing()
    finally:
        os.kill(own_kafka.pid, signal.SIGCONT)


@pytest.mark.parametrize("error", [EOFError("it was cut"), asyncio.CancelledError()], ids=["cut", "canceled by nobody"])
async def test_a_member_goes_on_to_learn_where_partitions_are_whatever_has_ended_that(inbox: Inbox, error: BaseException) -> None:
    client, failed = inbox.members[0]._connected()._client, asyncio.Event()  # type: ignore[union-attr]
    update = client._metadata_update

    async def fails_once(*_: Any) -> Any:
        client._metadata_update = update
        failed.set()
        raise error

    client._metadata_update = fails_once
    client.force_metadata_update()  # whoever asks where a partition is waits for this from now on
    await failed.wait()
    assert await _states(inbox) == {"known-log"}


async def test_what_was_parked_out_of_the_old_log_keeps_its_place_and_leaves_its_number(
    admin_url: str, own_kafka: EmbeddedKafka, tmp_path: Path, fresh_prefix: Callable[[str], str]
) -> None:
    tenant, counter = uuid4(), uuid4()
    nonsense = {**bump(tenant, counter), "value": b"no JSON"}
    async with toy_at(admin_url, own_kafka.bootstrap_servers, fresh_prefix("parked")) as toy, toy.shell() as shell:

        async def parked() -> list[tuple[Any, ...]]:
            return await rows(toy, "SELECT off, reason FROM inbox_parked ORDER BY off")

        async with producer_at(toy) as producer, Member(toy, shell, adopts=False):
            await send(producer, partitions(toy)[0], [nonsense] * 3)
            assert await until(parked, lambda found: len(found) == 3) == [(each, "schema") for each in range(3)]
        await _lose(own_kafka, tmp_path, toy)
        async with producer_at(toy) as producer, Member(toy, shell, adopts=True):
            await send(producer, partitions(toy)[0], [nonsense] * 2)
            found = await until(parked, lambda found: len(found) == 5)
            assert [offset for offset, _ in found] == [-3, -2, -1, 0, 1]


class Member:
    """A member as a worker has it, with its reports."""

    def __init__(self, toy: Toy, shell: Shell, *, adopts: bool) -> None:
        broker = Broker(toy.settings)
        self._kafka = kafka_broker(broker)
        self._inbox = Inbox(shell, broker, group=GROUP, topics=[TOPIC], adopts_new_logs=adopts)
        self._inbox.subscribe(self._kafka)
        self._reporting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Inbox:
        await self._kafka.start()
        self._reporting = asyncio.create_task(self._inbox.report())
        return self._inbox

    async def __aexit__(self, *_: object) -> None:
        assert self._reporting
        self._reporting.cancel()
        await asyncio.wait({self._reporting})
        await self._kafka.stop()
