"""The life of a worker process: consumers, relay and timers, with an operator surface and no FastAPI."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
import uvloop
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from libs.common.database import Database, Rows
from libs.common.http.server import Check, operator_app, serve
from libs.common.messaging.broker import Broker
from libs.common.messaging.decision import Aggregate, Handlers
from libs.common.messaging.hints import Hints
from libs.common.messaging.inbox import Inbox, kafka_broker
from libs.common.messaging.relay import Relay
from libs.common.messaging.shell import Shell
from libs.common.settings import Settings, SettingsError
from libs.common.telemetry import configure_logging

POOL_SIZE = 8

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """What a service's own jobs work with."""

    shell: Shell
    settings: Any


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
) -> None:
    """Work until SIGTERM; then finish the batch in hand and leave."""
    configure_logging(settings.log_level, settings.log_format, service=name, process="worker")
    uvloop.run(_run(name, settings, rows, handlers, topics, announce, jobs))


async def _run(
    name: str,
    settings: Settings,
    rows: Sequence[Rows[Any]],
    handlers: Handlers,
    topics: Sequence[str],
    announce: frozenset[type[Aggregate]],
    jobs: Sequence[Job],
) -> None:
    if settings.relay_database_url is None:
        message = "set CARTWRIGHT_RELAY_DATABASE_URL: a worker publishes its database's outbox"
        raise SettingsError(message)
    url = settings.database_url.get_secret_value()
    database = await Database.connect(url, application=f"{name}-worker", size=POOL_SIZE)
    hints = Hints(url)
    shell = Shell(database, rows, handlers, service=name, hints=hints, announce=announce)
    broker = Broker(settings)
    kafka = kafka_broker(broker)
    inbox = Inbox(shell, broker, group=name, topics=topics)
    inbox.subscribe(kafka)
    relay = Relay(settings.relay_database_url.get_secret_value(), database=name, broker=broker, hints=hints)
    await hints.start()
    tasks = [
        asyncio.create_task(relay.run(), name="relay"),
        asyncio.create_task(_consume(kafka), name="consumer"),
        asyncio.create_task(inbox.report(), name="lag"),
        *(asyncio.create_task(job(Worker(shell, settings)), name=job.__name__) for job in jobs),
    ]
    asyncapi = Route("/asyncapi.json", _asyncapi(name, kafka))
    serving = asyncio.create_task(serve(operator_app(_readiness(database, kafka), asyncapi), settings), name="http")
    await _until_something_ends([serving, *tasks])
    await kafka.stop()
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await hints.close()
    await database.close()
    serving.result()


async def _until_something_ends(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """The server ends on a signal; anything else that ends is a failure, and the process must say so and die."""
    serving, *others = tasks
    consumer_done = [task for task in others if task.get_name() != "consumer"]
    done, _ = await asyncio.wait([serving, *consumer_done], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        if task is not serving:
            log.error("worker.task_ended", task=task.get_name(), action="the process ends; its supervisor starts another")
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


def _readiness(database: Database, kafka: KafkaBroker) -> list[Check]:
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

    return [database_ready, consumer_ready]


def _asyncapi(name: str, kafka: KafkaBroker) -> Callable[[Request], Awaitable[Response]]:
    async def document(_: Request) -> Response:
        specification = AsyncAPI(kafka, title=f"Cartwright {name}", version="1").to_specification()
        return Response(specification.to_json(), media_type="application/json")

    return document
