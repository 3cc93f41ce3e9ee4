"""The life of a worker process: consumers, relay and timers, with an operator surface and no FastAPI."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import asyncpg
import structlog
import uvloop
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from libs.common.auth import Keys, Verifier
from libs.common.database import PASSING, Database, Projection, Rows, passes_by_itself
from libs.common.errors import UnavailableError
from libs.common.http.operator import repair_routes
from libs.common.http.server import Check, calm_collector, operator_app, serve
from libs.common.messaging import asyncapi
from libs.common.messaging.broker import Broker
from libs.common.messaging.decision import Aggregate, Handlers
from libs.common.messaging.hints import Hints
from libs.common.messaging.inbox import Inbox, kafka_broker
from libs.common.messaging.parked import ParkedMessages
from libs.common.messaging.projector import Kept, Projector
from libs.common.messaging.rebuild import Rebuilder
from libs.common.messaging.relay import Relay
from libs.common.messaging.relay.set_aside import OutboxParked
from libs.common.messaging.shell import Shell
from libs.common.settings import Settings, SettingsError
from libs.common.telemetry import Gauge, configure_logging

POOL_SIZE = 8
COUNT_SECONDS = 15
LONGEST_WAIT_SECONDS = 5
"""For a database that is away when the process begins."""

PARKED_MESSAGES = Gauge("cartwright_parked_messages", "Messages set aside and not yet decided", ["state"])
PARKED_KEYS = Gauge("cartwright_parked_keys", "Keys with messages set aside", ["state"])

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """What a service's own jobs work with."""

    shell: Shell
    settings: Any
    extras: dict[str, Any] = field(default_factory=dict)
    """What the composition root made for several jobs to share."""
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What is done when all jobs have ended."""


Prepare = Callable[[Worker], Awaitable[None]]


async def _nothing(_: Worker) -> None:
    """Most services have nothing else to prepare."""


Job = Callable[[Worker], Coroutine[Any, Any, None]]
"""Runs for as long as the worker does."""


def run_worker(
    name: str,
    settings: Settings,
    *,
    rows: Sequence[Rows[Any]],
    handlers: Handlers,
    topics: Sequence[str],
    announce: frozenset[type[Aggregate]] = frozenset(),
    jobs: Sequence[Job] = (),
    projections: Sequence[Projection] = (),
    apart: Sequence[Kept] = (),
    prepare: Prepare = _nothing,
    patient: bool = False,
) -> None:
    """Work until SIGTERM; then finish the batch in hand and leave. A patient one may hear of an event 0.25 s later."""
    configure_logging(settings.log_level, settings.log_format, service=name, process="worker")
    uvloop.run(_run(name, settings, rows, handlers, topics, announce, jobs, projections, apart, prepare, patient))


async def _run(
    name: str,
    settings: Settings,
    rows: Sequence[Rows[Any]],
    handlers: Handlers,
    topics: Sequence[str],
    announce: frozenset[type[Aggregate]],
    jobs: Sequence[Job],
    projections: Sequence[Projection],
    apart: Sequence[Kept],
    prepare: Prepare,
    patient: bool,
) -> None:
    if settings.relay_database_url is None:
        message = "set CARTWRIGHT_RELAY_DATABASE_URL: a worker publishes its database's outbox"
        raise SettingsError(message)
    url = settings.database_url.get_secret_value()
    database = await Database.connect(url, application=f"{name}-worker", size=POOL_SIZE, least=0)
    hints = Hints(url)
    shell = Shell(database, rows, handlers, service=name, hints=hints, announce=announce)
    broker = Broker(settings)
    kafka = kafka_broker(broker)
    share, days = settings.inbox_park_share, settings.inbox_remembered_days
    inbox = Inbox(shell, broker, group=name, topics=topics, park_share=share, remembered_days=days, patient=patient)
    inbox.subscribe(kafka)
    projectors = [Projector(name, kept, database, hints, broker) for kept in apart]
    for projector in projectors:
        projector.inbox.subscribe(kafka)
    inboxes = [inbox, *(each.inbox for each in projectors)]
    set_apart = {each.name: each.parked for each in projectors}
    parked = ParkedMessages(shell, inbox.reader, inbox.group)
    verifier = Verifier(Keys(settings.jwks_url), issuer=settings.issuer, audience=name)
    outbox = OutboxParked(settings.relay_database_url.get_secret_value())
    rebuilder = Rebuilder(shell, broker, group=name, projections=projections, others=[each.rebuilder for each in projectors])
    relay = Relay(settings.relay_database_url.get_secret_value(), database=name, broker=broker, hints=hints)
    await hints.start()
    described = Route("/asyncapi.json", _asyncapi(name, handlers, {each.projection.name: each.handlers for each in apart}))
    repairs = repair_routes(parked, verifier, rebuilder, outbox, set_apart)
    surface = operator_app(_readiness(database, kafka, inboxes), described, *repairs)
    serving = asyncio.create_task(serve(surface, settings), name="http")
    worker = Worker(shell, settings)
    tasks: list[asyncio.Task[None]] = []
    if await _answers(database, serving):
        await prepare(worker)
        hints.call_everyone()
        calm_collector()
        tasks += [
            asyncio.create_task(relay.run(), name="relay"),
            asyncio.create_task(_consume(kafka), name="consumer"),
            *(asyncio.create_task(each.report(), name=f"lag of {each.group}") for each in inboxes),
            asyncio.create_task(_count_parked([parked, *set_apart.values()]), name="parked"),
            *(asyncio.create_task(job(worker), name=job.__name__) for job in jobs),
        ]
    await _until_something_ends([serving, *tasks])
    await _leave(kafka, tasks, worker)
    await hints.close()
    await database.close()
    serving.result()


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


async def _leave(kafka: KafkaBroker, tasks: Sequence["asyncio.Task[None]"], worker: Worker) -> None:
    """Finish what is in hand, and end everything else."""
    await kafka.stop()
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    for close in worker.closing:
        await close()


async def _until_something_ends(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """The server ends on a signal; anything else that ends is a failure, and the process must say so and die."""
    serving, *others = tasks
    consumer_done = [task for task in others if task.get_name() != "consumer"]
    done, _ = await asyncio.wait([serving, *consumer_done], return_when=asyncio.FIRST_COMPLETED)
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


async def _consume(kafka: KafkaBroker) -> None:
    """Start consuming, however long the broker keeps us waiting."""
    while True:
        try:
            await kafka.start()
        except (KafkaError, OSError) as error:
            log.warning("consumer.waiting_for_broker", error=str(error), action="trying again in a second")
            await kafka.stop()
            await asyncio.sleep(1)
        else:
            return


async def _count_parked(everywhere: Sequence[ParkedMessages]) -> None:
    """Keep the gauges of what is set aside; while the database is away they stay as they were."""
    while True:
        try:
            counts = [await parked.counts() for parked in everywhere]
        except (*PASSING, asyncpg.PostgresError) as error:
            log.info("parked.not_counted", error=str(error))
        else:
            for state in ("rejected", "parked", "queued"):
                PARKED_MESSAGES.labels(state).set(sum(each[state][0] for each in counts if state in each))
                PARKED_KEYS.labels(state).set(sum(each[state][1] for each in counts if state in each))
        await asyncio.sleep(COUNT_SECONDS)


def _readiness(database: Database, kafka: KafkaBroker, inboxes: Sequence[Inbox]) -> list[Check]:
    async def database_ready() -> str | None:
        try:
            async with asyncio.timeout(1), database.acquire() as connection:
                await connection.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001 - whatever it is, we are not ready
            return f"database: {error}"
        return None

    async def consumer_ready() -> str | None:
        assigned = [subscriber for subscriber in kafka.subscribers if getattr(subscriber, "consumer", None)]
        if assigned and all(subscriber.consumer.assignment() for subscriber in assigned):  # type: ignore[attr-defined]
            return None
        return "the consumer has no partitions yet"

    async def not_halted() -> str | None:
        halted = [f"{inbox.group}: {inbox.halted}" for inbox in inboxes if inbox.halted]
        return f"a consumer stands still: {'; '.join(halted)}" if halted else None

    return [database_ready, consumer_ready, not_halted]


def _asyncapi(name: str, handlers: Handlers, apart: Mapping[str, Handlers]) -> Callable[[Request], Awaitable[Response]]:
    async def document(_: Request) -> Response:
        return JSONResponse(asyncapi.document(name, handlers, apart))

    return document
