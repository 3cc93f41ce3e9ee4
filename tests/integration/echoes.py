"""The toy with a consumer that answers each event with one of its own, and the spans that all of it leaves."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid5

import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.common.decision import Handlers, Message, Ref, World
from libs.common.messaging.broker import Broker
from libs.common.messaging.inbox import Inbox, kafka_broker
from libs.common.messaging.shell import Shell
from libs.common.telemetry.recording import OpenTelemetry, resource
from tests.shared import toy as toys
from tests.shared.toy import SERVICE, TOPIC, Bump, Bumped, Counter, Tally, Toy

ECHO = 1_000
"""A counter with this value was bumped by an event."""

HANDLERS = Handlers()
LINES = structlog.get_logger("test")


@HANDLERS.on(Bump, lambda m: [Ref(Counter, m.data.counter_id)])
def bump(world: World, message: Message[Bump]) -> int:
    LINES.warning("bumping")
    return toys.bump(world, message)


@HANDLERS.on(Bumped, lambda m: [Ref(Tally, m.data.counter_id), Ref(Counter, echo_of(m.data.counter_id))])
def echo(world: World, message: Message[Bumped]) -> None:
    """Tally it, and the first time answer with an event of its own."""
    toys.tally(world, message)
    if message.data.value == ECHO:
        return
    counter = Counter(tenant_id=world.tenant_id, id=echo_of(message.data.counter_id), value=ECHO)
    world.save(counter, Bumped(counter_id=counter.id, value=counter.value))


def echo_of(counter_id: UUID) -> UUID:
    return uuid5(counter_id, "echo")


class Trace:
    """The spans that have ended, by name."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(resource=resource(SERVICE, "test"), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.recorder = OpenTelemetry(provider)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    async def until(self, name: str, count: int) -> None:
        deadline = time.monotonic() + 30
        while len(self.named(name)) < count:
            assert time.monotonic() < deadline, [span.name for span in self.exporter.get_finished_spans()]
            await asyncio.sleep(0.05)


@asynccontextmanager
async def consuming(toy: Toy, shell: Shell) -> AsyncIterator[Inbox]:
    broker = Broker(toy.settings)
    kafka = kafka_broker(broker)
    inbox = Inbox(shell, broker, group="echoes", topics=[TOPIC])
    inbox.subscribe(kafka)
    await kafka.start()
    try:
        yield inbox
    finally:
        await kafka.stop()
