"""One purchase is one trace, every line says where it belongs, and the documented metrics are those there are."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import structlog
from fastapi import FastAPI, Response
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

import deploy.cli.invariants.run  # noqa: F401 - it has metrics, as has whatever else is imported here
import libs.common.processes.worker  # noqa: F401 - as above
import services.payments.api
import services.payments.gateway.limits  # noqa: F401 - as above
from libs.common.clock import new_id
from libs.common.database import Database
from libs.common.decision import Message, World
from libs.common.errors import ConflictError
from libs.common.http.routes import Caller, Facing, Routes, Service, public
from libs.common.http.server import operator_app
from libs.common.messaging.headers import traceparent_of
from libs.common.messaging.hints import Hints
from libs.common.messaging.shell import Failure, Shell
from libs.common.processes.api import api_app
from libs.common.telemetry.logs import add_subject
from libs.common.telemetry.messages import chunk_span
from libs.common.telemetry.traces import MAX_LINKS, record_with
from services.payments.domain.provider.operation import Operation, OperationKind, OperationState
from services.payments.domain.provider.outcome import Outcome, Throttled
from services.payments.jobs.provider import calling
from tests.integration.echoes import HANDLERS, LINES, Trace, consuming
from tests.shared.toy import COUNTERS, SERVICE, TALLIES, TOPIC, Bump, Toy, command

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "telemetry.md"
TENANT = uuid4()
CALLER = f"00-{'a' * 32}-{'b' * 16}-01"


def _id(span: ReadableSpan) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def _links(span: ReadableSpan) -> set[tuple[int, int]]:
    return {(link.context.trace_id, link.context.span_id) for link in span.links}


def _said(span: ReadableSpan, *names: str) -> list[Any]:
    return [(span.attributes or {})[name] for name in names]


@pytest.fixture
def trace() -> Iterator[Trace]:
    trace = Trace()
    before = record_with(trace.recorder)
    yield trace
    record_with(before)


@pytest.fixture
async def toy(admin_url: str, bootstrap_servers: str, fresh_prefix: Callable[[str], str]) -> Toy:
    toy = Toy(admin_url, bootstrap_servers, fresh_prefix("toy"))
    await toy.prepare()
    return toy


@pytest.fixture
async def shell(toy: Toy) -> AsyncIterator[Shell]:
    database = await Database.connect(toy.url("app"), application="toy", size=5)
    hints = Hints(toy.url("app"))
    await hints.start()
    yield Shell(database, (COUNTERS, TALLIES), HANDLERS, service=SERVICE, hints=hints)
    await hints.close()
    await database.close()


def _app(shell: Shell) -> FastAPI:
    routes = Routes(Facing.CUSTOMERS)

    @routes.post("/v1/counters/{counter_id}/bumps")
    @public
    async def bump_it(counter_id: UUID, call: Caller) -> Response:
        if counter_id.int == 0:
            raise ConflictError("no-such-bump", "this one can't be bumped")
        await call.execute(Bump(counter_id=counter_id), tenant_id=TENANT)
        return Response(call.traceparent)

    app = api_app("toy", routes)
    app.state.service = Service("toy", shell, shell._hints, verifier=None)  # type: ignore[arg-type]
    return app


async def _post(shell: Shell, counter_id: UUID, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(_app(shell))
    async with httpx.AsyncClient(transport=transport, base_url="http://toy") as client:
        return await client.post(f"/v1/counters/{counter_id}/bumps", headers=headers)


async def test_a_request_its_command_its_event_the_handling_and_what_that_publishes_are_one_trace_from_parent_to_child(
    toy: Toy, shell: Shell, trace: Trace
) -> None:
    async with toy.relay("only"), consuming(toy, shell):
        answer = await _post(shell, uuid4(), traceparent=CALLER)
        await trace.until("process toy.bumped", 2)
    assert answer.status_code == 200
    [request], [execute] = trace.named("POST /v1/counters/{counter_id}/bumps"), trace.named("execute Bump")
    first, second = trace.named("create toy.bumped")
    handled, echoed = trace.named("process toy.bumped")
    chain = [request, execute, first, handled, second, echoed]
    assert {f"{span.context.trace_id:032x}" for span in chain} == {"a" * 32}
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == "b" * 16
    for parent, child in pairwise(chain):
        assert child.parent is not None
        assert child.parent.span_id == parent.context.span_id, f"{child.name} does not follow {parent.name}"
    kinds = [SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.PRODUCER, SpanKind.CONSUMER]
    assert [span.kind for span in chain] == kinds
    assert answer.text.split("-")[2] == f"{request.context.span_id:016x}"


async def test_spans_say_in_the_standards_words_what_was_asked_and_what_was_handled(toy: Toy, shell: Shell, trace: Trace) -> None:
    async with toy.relay("only"), consuming(toy, shell):
        await _post(shell, uuid4())
        await trace.until("process toy.bumped", 2)
    [request], handled = trace.named("POST /v1/counters/{counter_id}/bumps"), trace.named("process toy.bumped")[0]
    names = ("http.request.method", "http.route", "http.response.status_code")
    assert _said(request, *names) == ["POST", "/v1/counters/{counter_id}/bumps", 200]
    of_message = ("messaging.system", "messaging.operation.type", "messaging.destination.name", "messaging.consumer.group.name")
    assert _said(handled, *of_message) == ["kafka", "process", toy.prefix + TOPIC, toy.prefix + "echoes"]
    assert _said(handled, "cloudevents.event_type", "cartwright.tenant.id") == ["toy.bumped", str(TENANT)]
    assert handled.resource.attributes["service.name"] == SERVICE
    assert handled.resource.attributes["service.instance.id"]


async def test_a_batch_is_a_span_linked_to_its_messages_and_they_to_it(toy: Toy, shell: Shell, trace: Trace) -> None:
    messages = [command(TENANT, uuid4()) for _ in range(MAX_LINKS + 10)]
    await shell.execute_many(messages)
    async with toy.relay("only"), consuming(toy, shell):
        await trace.until("process toy.bumped", 2 * len(messages))
    await asyncio.sleep(0)
    batches = trace.named(f"process {toy.prefix}echoes")
    created, handled = trace.named("create toy.bumped"), trace.named("process toy.bumped")
    assert sum(_said(batch, "messaging.batch.message_count")[0] for batch in batches) == len(handled)
    assert all(0 < len(batch.links) <= MAX_LINKS for batch in batches)
    assert set().union(*map(_links, batches)) <= {_id(span) for span in created}
    assert set().union(*map(_links, handled)) <= {_id(batch) for batch in batches}
    assert len({span.context.trace_id for span in handled}) == len(messages)


async def test_a_relays_chunk_is_a_span_linked_to_the_events_in_it(toy: Toy, shell: Shell, trace: Trace) -> None:
    await shell.execute_many([command(TENANT, uuid4()) for _ in range(3)])
    admin = await asyncpg.connect(toy.admin_url.rpartition("/")[0] + "/" + toy.prefix + SERVICE)
    rows = await admin.fetch("SELECT topic, headers FROM outbox_event")
    await admin.close()
    with chunk_span([*rows, {"topic": TOPIC, "headers": b"not what we write"}], traceparent_of):
        pass
    [chunk] = trace.named("send chunk")
    assert _links(chunk) == {_id(span) for span in trace.named("create toy.bumped")}
    assert _said(chunk, "messaging.batch.message_count") == [4]


async def test_a_refusal_is_no_failure_and_a_failure_says_its_kind_and_nothing_else(shell: Shell, trace: Trace) -> None:
    answer = await _post(shell, UUID(int=0))
    [request] = trace.named("POST /v1/counters/{counter_id}/bumps")
    assert (answer.status_code, request.status.status_code) == (409, StatusCode.UNSET)
    failing = Message(data=Failing(secret="whsec_1"), tenant_id=TENANT, id="x", time=command(TENANT, uuid4()).time)
    with pytest.raises(ValueError, match="whsec_1"):
        await shell.execute(failing)
    [answered] = await shell.execute_many([failing])
    assert isinstance(answered, Failure)
    for span in trace.named("execute Failing"):
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert _said(span, "error.type") == ["ValueError"]
        assert "whsec_1" not in span.to_json()


class Failing:
    """A command that fails."""

    def __init__(self, secret: str) -> None:
        self.secret = secret


@HANDLERS.on(Failing, lambda _: [])
def fail(_world: World, message: Message[Failing]) -> None:
    raise ValueError(message.data.secret)


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
async def test_a_request_without_a_trace_begins_one_and_its_event_carries_it_whether_spans_are_recorded_or_not(
    toy: Toy, shell: Shell, trace: Trace, on: bool
) -> None:
    record_with(trace.recorder if on else None)
    for given in ({}, {"traceparent": f"00-{'0' * 32}-{'b' * 16}-01"}, {"traceparent": "rubbish"}):
        answer = await _post(shell, uuid4(), **given)
        assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-0[13]", answer.text)
    admin = await asyncpg.connect(toy.admin_url.rpartition("/")[0] + "/" + toy.prefix + SERVICE)
    stored = await admin.fetchval("SELECT headers FROM outbox_event ORDER BY id DESC LIMIT 1")
    await admin.close()
    assert answer.text.split("-")[1].encode() in stored
    assert bool(trace.exporter.get_finished_spans()) is on


async def test_what_a_sampler_leaves_out_is_left_out_of_the_whole_trace(shell: Shell, trace: Trace) -> None:
    answer = await _post(shell, uuid4(), traceparent=CALLER[:-2] + "00")
    assert (answer.text[:35], answer.text[-2:]) == (CALLER[:35], "00")
    assert not trace.exporter.get_finished_spans()


async def test_a_line_written_for_a_request_or_message_says_whose_it_is(shell: Shell) -> None:
    processors = [add_subject, structlog.contextvars.merge_contextvars]
    with structlog.testing.capture_logs(processors) as lines:
        request_id = str(new_id())
        await _post(shell, uuid4(), **{"traceparent": CALLER, "x-request-id": request_id})
        await shell.execute(command(TENANT, uuid4()))
        LINES.warning("afterwards")
    inside, alone, afterwards = [line for line in lines if line["event"] in {"bumping", "afterwards"}]
    assert inside["trace_id"] == "a" * 32
    assert (inside["request_id"], inside["message_id"], inside["tenant_id"]) == (request_id, request_id, str(TENANT))
    assert alone["tenant_id"] == str(TENANT)
    assert "request_id" not in alone
    assert afterwards.keys() == {"event", "log_level"}


async def test_each_call_to_the_provider_is_a_span_of_the_trace_that_planned_it(trace: Trace) -> None:
    at = command(TENANT, uuid4()).time
    operation = Operation(
        tenant_id=TENANT,
        id=uuid4(),
        payment_id=uuid4(),
        kind=OperationKind.CAPTURE,
        attempt=1,
        idempotency_key="key",
        request={},
        state=OperationState.SENDING,
        tries=1,
        first_send_at=at,
        due_at=at,
        traceparent=CALLER,
    )

    async def answers() -> Outcome:
        return Throttled(1)

    async def fails() -> Outcome:
        raise OSError("sk_test_1")

    for call in (answers(), fails()):
        await calling._timed(operation, operation.kind, call, [])
    throttled, unknown = trace.named("provider capture")
    for span in (throttled, unknown):
        assert span.kind is SpanKind.CLIENT
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == "b" * 16
        assert _said(span, "cartwright.operation.id") == [str(operation.id)]
    assert throttled.status.status_code is StatusCode.UNSET
    assert unknown.status.status_code is StatusCode.ERROR
    assert "sk_test_1" not in unknown.to_json()


class Collector(BaseHTTPRequestHandler):
    """Takes traces in."""

    received: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        self.received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_process_that_ends_sends_what_it_has_recorded_to_the_collector_that_the_environment_names() -> None:
    script = """
from libs.common.telemetry import call_span, configure_logging
configure_logging("info", "json", service="cart", process="worker")
with call_span("the last thing it did", of="somebody", parent=None, attributes={}):
    pass
"""
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        ours = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        environment = ours | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, check=True)
        server.shutdown()
    [(path, body)] = Collector.received
    assert path == "/v1/traces"
    for said in (b"the last thing it did", b"service.name", b"cart", b"service.instance.id"):
        assert said in body


def _documented() -> set[str]:
    return set(re.findall(r"^\| `(cartwright_\w+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))


async def test_a_workers_metrics_are_the_documented_ones_and_say_what_happened(toy: Toy, shell: Shell) -> None:
    async with toy.relay("only"), consuming(toy, shell) as inbox:
        reporting = asyncio.create_task(inbox.report())
        lag = f'cartwright_inbox_lag{{group="{inbox.group}",partition="0",topic="{toy.prefix + TOPIC}"}}'
        applied = f'cartwright_inbox_applied_total{{group="{inbox.group}",topic="{toy.prefix + TOPIC}"}}'
        deadline = time.monotonic() + 120
        while (scraped := await _scraped()).get(lag) != 0 or applied not in scraped:
            assert time.monotonic() < deadline, scraped
            await shell.execute(command(TENANT, uuid4()))
            await asyncio.sleep(0.2)
        reporting.cancel()
    assert scraped["cartwright_relay_published_total"] > 0
    assert scraped["cartwright_relay_chunk_seconds_count"] > 0
    assert scraped["cartwright_inbox_batch_size_count"] > 0
    assert scraped[applied] > 0


async def test_every_metric_there_is_is_documented_and_every_documented_one_is_there() -> None:
    text = await _scrape()
    exposed = {name for name in re.findall(r"^# TYPE (cartwright_\w+)", text, re.MULTILINE) if not name.endswith("_created")}
    declared = {
        name
        for path in [file for folder in ("libs", "services", "deploy") for file in (ROOT / folder).rglob("*.py")]
        for name in re.findall(r"(?:Counter|Gauge|Histogram)\(\s*\"(cartwright_\w+)\"", path.read_text(encoding="utf-8"))
    }
    assert exposed == declared, "a module with metrics is not imported above"
    assert _documented() == exposed


async def _scrape() -> str:
    transport = httpx.ASGITransport(operator_app([]))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        return (await client.get("/metrics")).text


async def _scraped() -> dict[str, float]:
    lines = (line.rpartition(" ") for line in (await _scrape()).splitlines() if line.startswith("cartwright_"))
    return {name: float(value) for name, _, value in lines}


def test_every_span_that_is_made_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in ("execute <Command>", "create <type>", "process <type>", "process <group>", "send chunk", "provider <kind>"):
        assert f"`{name}`" in text
    attributes = {
        name
        for path in [
            *(ROOT / "libs" / "common" / "telemetry").glob("*.py"),
            ROOT / "services" / "payments" / "jobs" / "provider" / "calling.py",
        ]
        for name in re.findall(r"\"((?:cartwright|http|url|messaging|cloudevents|error|service)\.[a-z_.]+)\"", path.read_text())
    }
    assert not {name for name in attributes if f"`{name}`" not in text}
