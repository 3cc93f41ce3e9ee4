"""Fetch sessions against a broker that keeps them as KIP-227 says, and loses them when it likes."""

import asyncio
import random
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11

from libs.common.messaging.reading.sessions import LAST_EPOCH, RENEWED_SECONDS, Part, SessionFetch, Sessions

NODE, TOPIC, SIZE, AT_MOST = 1, "orders", 1 << 20, 3
UNKNOWN_SESSION, WRONG_EPOCH = 70, 71


class Broker:
    """Logs of numbers, and what it remembers of who reads them."""

    def __init__(self) -> None:
        self.logs: dict[Part, int] = defaultdict(int)
        self.sessions: dict[int, tuple[int, dict[Part, int], dict[Part, int]]] = {}
        """By its id: the epoch it waits for, from where each partition is read, and the end that was last told of it."""
        self.made = 0
        self.has_room = True
        self.is_old = False
        self.heard: list[tuple[int, int, int, int]] = []
        """Of each fetch: session, epoch, how many partitions it names, how many it forgets."""

    async def ask(self, node: int, request: Any) -> Any:
        assert node == NODE
        if self.is_old and isinstance(request, SessionFetch):
            raise NotImplementedError
        asked = request.build(FetchRequest_v11)
        told = {(topic, each[0]): each[2] for topic, parts in asked.topics for each in parts}
        forgotten = [(topic, part) for topic, parts in asked.forgotten_topics_data for part in parts]
        self.heard.append((asked.session_id, asked.session_epoch, len(told), len(forgotten)))
        if asked.session_epoch == -1:
            return answer(0, 0, {part: (at, self.logs[part]) for part, at in told.items()})
        if asked.session_epoch == 0:
            return self._begun(asked.session_id, told)
        return self._continued(asked, told, forgotten)

    def _begun(self, old: int, told: dict[Part, int]) -> Any:
        self.sessions.pop(old, None)
        self.made += 1
        ends = {part: self.logs[part] for part in told}
        if self.has_room:
            self.sessions[self.made] = (1, dict(told), dict(ends))
        return answer(0, self.made * self.has_room, {part: (at, ends[part]) for part, at in told.items()})

    def _continued(self, asked: Any, told: dict[Part, int], forgotten: list[Part]) -> Any:
        if asked.session_id not in self.sessions:
            return answer(UNKNOWN_SESSION, 0, {})
        epoch, known, ends = self.sessions[asked.session_id]
        if epoch != asked.session_epoch:
            return answer(WRONG_EPOCH, 0, {})
        known.update(told)
        for part in forgotten:
            del known[part]
            ends.pop(part, None)
        found = {
            part: (at, self.logs[part]) for part, at in known.items() if at < self.logs[part] or ends.get(part) != self.logs[part]
        }
        ends.update({part: end for part, (_, end) in found.items()})
        self.sessions[asked.session_id] = (1 if epoch == LAST_EPOCH else epoch + 1, known, ends)
        return answer(0, asked.session_id, found)


def answer(error: int, session: int, found: dict[Part, tuple[int, int]]) -> Any:
    topics: dict[str, list[tuple[int, list[int], int]]] = defaultdict(list)
    for (topic, partition), (at, end) in found.items():
        topics[topic].append((partition, [*range(at, min(end, at + AT_MOST))], end))
    return SimpleNamespace(error_code=error, session_id=session, topics=[*topics.items()], API_VERSION=11)


def fetch(positions: dict[int, int]) -> Any:
    parts = [(partition, at, SIZE) for partition, at in positions.items()]
    return FetchRequest(500, 1, 8 * SIZE, 1, [(TOPIC, parts)] if parts else [])


def read(found: Any) -> dict[int, list[int]]:
    return {partition: records for _, parts in found.topics for partition, records, _ in parts if records}


def test_it_says_of_a_fetch_what_the_library_says_of_it() -> None:
    asked = FetchRequest(500, 7, 8 * SIZE, 1, [("a", [(0, 5, SIZE), (3, 9, SIZE)]), ("b", [(1, 0, SIZE)])], rack_id="r")
    wanted = {(topic, each[0]): each[1:] for topic, parts in asked.topics for each in parts}
    ours = SessionFetch(asked, 0, -1, wanted, ()).build(FetchRequest_v11)
    assert ours.encode() == asked.build(FetchRequest_v11).encode()
    assert SessionFetch(asked, 0, -1, wanted, ()).prepare({1: (4, 17)}).API_VERSION == 11
    with pytest.raises(NotImplementedError):
        SessionFetch(asked, 0, -1, wanted, ()).prepare({1: (4, 10)})


async def test_only_what_has_changed_is_named_and_answered() -> None:
    broker = Broker()
    sessions = Sessions(broker.ask)
    positions = dict.fromkeys(range(60), 0)
    await sessions.fetch(NODE, fetch(positions))
    broker.logs[TOPIC, 7] = 2
    assert read(await sessions.fetch(NODE, fetch(positions))) == {7: [0, 1]}
    positions[7] = 2
    assert read(await sessions.fetch(NODE, fetch(positions))) == {}
    assert broker.heard == [(0, 0, 60, 0), (1, 1, 0, 0), (1, 2, 1, 0)]


async def test_what_has_records_that_nobody_took_yet_is_forgotten_and_not_sent_again() -> None:
    broker = Broker()
    sessions = Sessions(broker.ask)
    await sessions.fetch(NODE, fetch({0: 0, 1: 0}))
    broker.logs[TOPIC, 0] = broker.logs[TOPIC, 1] = 1
    assert read(await sessions.fetch(NODE, fetch({0: 0, 1: 0}))) == {0: [0], 1: [0]}
    assert read(await sessions.fetch(NODE, fetch({1: 1}))) == {}, "the first is not taken yet"
    assert read(await sessions.fetch(NODE, fetch({0: 1, 1: 1}))) == {}
    assert read(await sessions.fetch(NODE, fetch({0: 0, 1: 1}))) == {0: [0]}, "somebody went back"
    assert [each[2:] for each in broker.heard] == [(2, 0), (0, 0), (1, 1), (1, 0), (1, 0)]


@pytest.mark.parametrize("loss", ["the broker has lost it", "an epoch was heard that was not answered"])
async def test_a_session_that_the_broker_does_not_have_is_begun_anew_within_the_same_fetch(loss: str) -> None:
    broker = Broker()
    sessions = Sessions(broker.ask)
    await sessions.fetch(NODE, fetch({0: 0, 1: 0}))
    broker.logs[TOPIC, 1] = 1
    if loss == "the broker has lost it":
        broker.sessions.clear()
    else:
        broker.sessions[1] = (2, *broker.sessions[1][1:])
    assert read(await sessions.fetch(NODE, fetch({0: 0, 1: 0}))) == {1: [0]}
    assert len(broker.sessions) == 1, "the old one is given up"
    assert read(await sessions.fetch(NODE, fetch({0: 0, 1: 1}))) == {}
    assert broker.heard[-1] == (2, 1, 1, 0)


async def test_a_broker_that_has_no_room_for_a_session_is_told_everything() -> None:
    broker = Broker()
    sessions = Sessions(broker.ask)
    broker.has_room = False
    for end in (1, 2, 3):
        broker.logs[TOPIC, 0] = end
        assert read(await sessions.fetch(NODE, fetch({0: end - 1, 1: 0}))) == {0: [end - 1]}
    broker.has_room = True
    await sessions.fetch(NODE, fetch({0: 3, 1: 0}))
    await sessions.fetch(NODE, fetch({0: 3, 1: 0}))
    assert broker.heard[-3:] == [(0, 0, 2, 0), (0, 0, 2, 0), (4, 1, 0, 0)]


async def test_a_broker_of_before_sessions_is_asked_as_the_library_asks_it() -> None:
    broker = Broker()
    sessions = Sessions(broker.ask)
    broker.is_old = True
    broker.logs[TOPIC, 0] = 2
    assert read(await sessions.fetch(NODE, fetch({0: 0}))) == {0: [0, 1]}
    assert read(await sessions.fetch(NODE, fetch({0: 1}))) == {0: [1]}
    assert broker.heard == [(0, -1, 1, 0), (0, -1, 1, 0)]


async def test_an_answer_that_speaks_of_what_was_not_asked_for_ends_the_session() -> None:
    broker = Broker()
    sessions = Sessions(broker.ask)
    await sessions.fetch(NODE, fetch({0: 0}))
    broker.sessions[1][1][TOPIC, 9] = 0
    broker.logs[TOPIC, 0] = broker.logs[TOPIC, 9] = 1
    assert read(await sessions.fetch(NODE, fetch({0: 0}))) == {0: [0]}
    assert broker.heard[-1] == (1, 0, 1, 0)


async def test_everything_is_named_now_and_then_and_at_once_where_silence_is_doubted() -> None:
    broker, time = Broker(), [0.0]
    sessions = Sessions(broker.ask, lambda: time[0])
    positions = {0: 0, 1: 0}
    for doubted, later in (((), 0.0), ((), RENEWED_SECONDS - 0.1), ({(TOPIC, 5)}, 0.0), ({(TOPIC, 1)}, 0.0), ((), 0.0)):
        time[0] += later
        await sessions.fetch(NODE, fetch(positions), doubted=doubted)
    time[0] += RENEWED_SECONDS
    await sessions.fetch(NODE, fetch(positions))
    assert [each[2] for each in broker.heard] == [2, 0, 0, 2, 0, 2]


async def test_epochs_begin_again_at_one() -> None:
    broker = Broker()
    sessions = Sessions(broker.ask)
    await sessions.fetch(NODE, fetch({0: 0}))
    broker.sessions[1] = (LAST_EPOCH, *broker.sessions[1][1:])
    sessions._known[NODE].epoch = LAST_EPOCH
    await sessions.fetch(NODE, fetch({0: 0}))
    await sessions.fetch(NODE, fetch({0: 0}))
    assert [each[1] for each in broker.heard] == [0, LAST_EPOCH, 1]


class Reader:
    """Reads as aiokafka does: nothing is asked of a partition while it is paused, or has records that nobody took."""

    def __init__(self, broker: Broker, chance: random.Random) -> None:
        self.broker, self.chance = broker, chance
        self.sessions = Sessions(self._ask)
        self.positions = dict.fromkeys(range(24), 0)
        self.taken: dict[int, list[int]] = defaultdict(list)
        self.buffered: dict[int, list[int]] = {}
        self.paused = set[int]()

    async def _ask(self, node: int, request: Any) -> Any:
        found = await self.broker.ask(node, request)
        mishap = self.chance.randrange(30)
        if mishap == 0:
            raise asyncio.CancelledError  # heard, and not answered
        if mishap == 1:
            raise ConnectionError
        if mishap == 2:
            self.broker.sessions.clear()
        return found

    async def step(self) -> None:
        for part in [part for part in self.buffered if self.chance.random() < 0.7]:
            self.taken[part] += self.buffered.pop(part)
            self.positions[part] = self.taken[part][-1] + 1
        if self.chance.random() < 0.2:
            self.paused ^= {self.chance.randrange(len(self.positions))}
        wanted = {part: at for part, at in self.positions.items() if part not in self.paused and part not in self.buffered}
        try:
            found = read(await self.sessions.fetch(NODE, fetch(wanted)))
        except (asyncio.CancelledError, ConnectionError):
            return
        assert not found.keys() & self.buffered.keys()
        self.buffered |= found


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_everything_is_read_in_order_and_nothing_twice(seed: int) -> None:
    chance, broker = random.Random(seed), Broker()
    reader = Reader(broker, chance)
    for _ in range(300):
        for _ in range(chance.randrange(4)):
            broker.logs[TOPIC, chance.randrange(24)] += chance.randrange(5)
        await reader.step()
    reader.paused.clear()
    while any(reader.positions[part] < end for (_, part), end in broker.logs.items()):
        await reader.step()
    assert {part: [*range(end)] for (_, part), end in broker.logs.items() if end} == dict(reader.taken)
    assert any(epoch > 1 for _, epoch, *_ in broker.heard)
