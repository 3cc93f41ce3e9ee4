"""The life of a worker process: consumers, relay and timers, with an operator surface and no FastAPI."""

import asyncio
import signal
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import count

import structlog
import uvloop
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libs.common.auth import Verifier
from libs.common.cells import in_cell
from libs.common.database import PASSING, WHATEVER_IT_SAYS, Database, passes_by_itself, poll
from libs.common.errors import UnavailableError
from libs.common.http.operator import repair_routes
from libs.common.http.positions import position_routes
from libs.common.http.server import Check, calm_collector, operator_app, serve
from libs.common.http.sources import source_routes
from libs.common.keys import Keys
from libs.common.messaging import asyncapi
from libs.common.messaging.broker import Broker
from libs.common.messaging.hints import Hints
from libs.common.messaging.inbox import Inbox, kafka_broker
from libs.common.messaging.peers import Peers, see_off
from libs.common.messaging.rebuild import Rebuilder
from libs.common.messaging.relay import Relay
from libs.common.messaging.relay.parked import OutboxParked
from libs.common.messaging.repairs import ParkedMessages
from libs.common.processes.following import follow
from libs.common.processes.parts import Process, ServiceParts, Worker
from libs.common.processes.projector import Projector
from libs.common.processes.running import (
    DatabaseReady,
    begin,
    ended,
    leave_in_time,
    revocations_known,
)
from libs.common.revocations import Revocations
from libs.common.settings import Settings, SettingsError
from libs.common.shared import Shared
from libs.common.telemetry import Gauge

POOL_SIZE = 8
COUNT_SECONDS = 15
LONGEST_WAIT_SECONDS = 5
"""For a database that is away when the process begins."""

PARKED_MESSAGES = Gauge("cartwright_parked_messages", "Messages parked and not yet decided", ["state"])
PARKED_KEYS = Gauge("cartwright_parked_keys", "Keys with parked messages", ["state"])

log = structlog.get_logger(__name__)


def run_worker(parts: ServiceParts) -> None:
    """Work until SIGTERM; then finish the batch in hand and leave."""
    settings = parts.settings.read()
    begin(parts.name, "worker", settings)
    uvloop.run(_run(parts, settings))


async def _run(parts: ServiceParts, settings: Settings) -> None:
    """Open one thing after the other; whatever happens, what was opened is closed again, the last first."""
    if settings.relay_database_url is None:
        message = "set CARTWRIGHT_RELAY_DATABASE_URL: a worker publishes its database's outbox"
        raise SettingsError(message)
    url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        database = await Database.connect(
            url, application=f"{parts.name}-worker", size=settings.database_connections or POOL_SIZE, least=0
        )
        stack.push_async_callback(database.close)
        hints = Hints(settings.listening_url, peers=(peers := Peers(parts.name)))
        await hints.start()
        stack.push_async_callback(hints.close)
        work = _Work(parts, settings, database, hints, peers, settings.relay_database_url.get_secret_value())
        stack.callback(work.database_ready.close)
        leaving = partial(leave_in_time, settings)
        serving = asyncio.create_task(serve(work.surface(), settings, leaving), name="http")
        stack.push_async_callback(ended, [serving])
        following = asyncio.create_task(follow(work.keys, work.revocations, work.broker), name="following")
        stack.push_async_callback(ended, [following])
        tasks: list[asyncio.Task[None]] = []
        if await _answers(database, serving):
            process = Process("worker", work.shell, settings, work.keys, work.revocations)
            shared = Shared(await stack.enter_async_context(parts.context(process)))
            hints.call_everyone()
            calm_collector()
            tasks += work.begun(Worker(work.shell, settings, shared))
            stack.push_async_callback(ended, tasks)
        stack.push_async_callback(work.kafka.stop)
        await _until_something_ends([serving, following, *tasks])


class _Work:
    """What a worker does all the time, put together."""

    def __init__(
        self, parts: ServiceParts, settings: Settings, database: Database, hints: Hints, peers: Peers, relay_url: str
    ) -> None:
        self.shell = parts.shell(database, hints, "worker", cell=settings.cell)
        self.keys = Keys(settings.jwks_url, settings.roots)
        self.revocations = Revocations()
        self.broker = broker = Broker(settings)
        self.kafka = kafka_broker(broker, peers.client_id)
        self._peers = peers
        self._parts, self._settings = parts, settings
        self.database_ready = DatabaseReady(settings.database_url.get_secret_value(), f"{parts.name}-worker")
        self._inbox = Inbox(
            self.shell,
            broker,
            group=parts.name,
            topics=parts.topics,
            park_share=settings.inbox_park_share,
            remembered_days=settings.inbox_remembered_days,
            grace_seconds=settings.inbox_waiting_seconds,
            source_budget=settings.inbox_source_budget,
            patient=parts.is_patient,
            adopts_new_logs=settings.adopt_new_log,
        )
        self._projectors = [
            Projector(
                parts.name,
                kept,
                self.shell,
                broker,
                adopts_new_logs=settings.adopt_new_log,
                source_budget=settings.inbox_source_budget,
            )
            for kept in parts.apart
        ]
        self._inboxes = [self._inbox, *(each.inbox for each in self._projectors)]
        for inbox in self._inboxes:
            inbox.subscribe(self.kafka)
        self._parked = ParkedMessages(self.shell, self._inbox.reader, self._inbox.group)
        self._outbox = OutboxParked(relay_url)
        others = [each.rebuilder for each in self._projectors]
        self._rebuilder = Rebuilder(self.shell, broker, group=parts.name, projections=parts.projections, others=others)
        topics = sorted({event.TOPIC for event in asyncapi.published_by(parts.name)})
        origin = in_cell(parts.name, settings.cell)
        self._relay = Relay(relay_url, database=origin, broker=broker, hints=hints, topics=topics)

    def surface(self) -> Starlette:
        """What operators ask this process."""
        verifier = Verifier(self.keys, self.revocations, issuer=self._settings.issuer, audience=self._parts.name)
        apart = {each.name: each.parked for each in self._projectors}
        repairs = repair_routes(self._parked, verifier, self._rebuilder, self._outbox, apart)
        positions = position_routes([each for inbox in self._inboxes for each in inbox.stored], verifier)
        sources = source_routes([each.sources for each in self._inboxes], verifier)
        return operator_app(
            self._readiness(), _asyncapi(self._parts), *repairs, *positions, *sources, decisions=[self._logs_known]
        )

    def begun(self, worker: Worker) -> list["asyncio.Task[None]"]:
        """Everything that goes on until the end, under way."""
        parked = [self._parked, *(each.parked for each in self._projectors)]
        return [
            asyncio.create_task(self._relay.run(), name="relay"),
            asyncio.create_task(_consume(self.kafka, self.broker), name="consumer"),
            *(asyncio.create_task(each.waiting.run(), name=f"what waits in {each.group}") for each in self._inboxes),
            *(asyncio.create_task(each.sources.run(), name=f"paused sources of {each.group}") for each in self._inboxes),
            *(asyncio.create_task(each.report(), name=f"lag of {each.group}") for each in self._inboxes),
            asyncio.create_task(see_off(self._peers, self._expel), name="peers"),
            asyncio.create_task(_count_parked(parked), name="parked"),
            asyncio.create_task(self._parts.eraser(self.shell).run(), name="eraser"),
            *(asyncio.create_task(job(worker), name=job.__name__) for job in self._parts.jobs),
        ]

    async def _expel(self, clients: Collection[str]) -> None:
        await asyncio.gather(*(inbox.expel(clients) for inbox in self._inboxes))

    def _readiness(self) -> list[Check]:
        async def consumer_ready() -> str | None:
            assigned = [subscriber for subscriber in self.kafka.subscribers if getattr(subscriber, "consumer", None)]
            if assigned and all(subscriber.consumer.assignment() for subscriber in assigned):  # type: ignore[attr-defined]
                return None
            return "the consumer has no partitions yet"

        async def not_halted() -> str | None:
            halted = [f"{inbox.group}: {inbox.halted}" for inbox in self._inboxes if inbox.halted]
            return f"a consumer stands still: {'; '.join(halted)}" if halted else None

        async def let_in() -> str | None:
            refused = [f"{inbox.group}: {inbox.refused}" for inbox in self._inboxes if inbox.refused]
            refused += [reason for work, reason in self.broker.denied.items() if work == "consume"]
            return f"the broker refuses: {'; '.join(refused)}" if refused else None

        async def revocations_ready() -> str | None:
            return revocations_known(self.revocations)

        return [self.database_ready, let_in, consumer_ready, not_halted, revocations_ready]

    async def _logs_known(self) -> str | None:
        replaced = [inbox.replaced for inbox in self._inboxes if inbox.replaced]
        return f"not read until ./cartwright positions adopt: {'; '.join(replaced)}" if replaced else None


async def _answers(database: Database, serving: "asyncio.Task[None]") -> bool:
    """Wait for a database that is still recovering, as for a broker; operators are answered meanwhile.

    False when the process is told to leave before. Raises UnavailableError for what does not pass by itself.
    """
    for tries in count(1):
        try:
            async with database.acquire() as connection:
                await connection.execute("SELECT 1")
        except PASSING as error:
            cause = error.__cause__ or error
            if not passes_by_itself(cause):
                raise UnavailableError("database-unavailable", f"cannot connect with the given database URL: {cause}") from error
            wait = min(tries, LONGEST_WAIT_SECONDS)
            log.warning("worker.waiting_for_database", error=str(cause), action=f"trying again in {wait} s")
            await asyncio.wait([serving], timeout=wait)
        else:
            return True
        if serving.done():
            return False
    raise AssertionError


async def _until_something_ends(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """The server ends on a signal; anything else that ends is a failure, and the process must say so and die."""
    serving, waiting = tasks[0], {*tasks}
    done: set[asyncio.Task[None]] = set()
    while not done:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        # Consuming goes on by itself once it has begun, and its task is over; unless it came to grief.
        done = {task for task in done if task.get_name() != "consumer" or task.cancelled() or task.exception() is not None}
    for task in done:
        if task is not serving:
            error = None if task.cancelled() else task.exception()
            log.error(
                "worker.task_ended",
                task=task.get_name(),
                error=repr(error),
                action="the process ends; its supervisor starts another",
                exc_info=error,
            )
            signal.raise_signal(signal.SIGTERM)
            await serving
            task.result()
    serving.result()


async def _consume(kafka: KafkaBroker, broker: Broker) -> None:
    """Start consuming, however long the broker keeps us waiting."""
    while True:
        try:
            await kafka.start()
        except (KafkaError, OSError) as error:
            action = "give this service its rights at the broker; it is not ready before"
            if not await broker.denies(error, work="consume", line="consumer.refused", action=action):
                log.warning("consumer.waiting_for_broker", error=str(error), action="trying again in a second")
            await kafka.stop()
            await asyncio.sleep(1)
        else:
            broker.denied.pop("consume", None)
            return


async def _count_parked(everywhere: Sequence[ParkedMessages]) -> None:
    """Keep the gauges of what is parked; while the database is away they stay as they were."""

    async def count_once() -> None:
        counts = [await parked.counts() for parked in everywhere]
        for state in ("rejected", "waiting", "parked", "queued"):
            PARKED_MESSAGES.labels(state).set(sum(each[state][0] for each in counts if state in each))
            PARKED_KEYS.labels(state).set(sum(each[state][1] for each in counts if state in each))

    await poll(count_once, every=COUNT_SECONDS, waiting="parked.not_counted", outlives=WHATEVER_IT_SAYS)


def _asyncapi(parts: ServiceParts) -> Route:
    async def document(_: Request) -> Response:
        return JSONResponse(asyncapi.document(parts.name, parts.handlers, parts.handlers_apart))

    return Route("/asyncapi.json", document)
