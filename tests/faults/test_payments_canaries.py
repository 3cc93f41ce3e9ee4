"""Card numbers, keys and secrets where they do not belong: whatever field or header they come in, they are found nowhere after.

Every route is found in the service's own OpenAPI, and every field of it; the places that are searched are every table of the
database (the outbox, so the topics, among them), every log line, every span, and every answer.
"""

import hashlib
import hmac
import io
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.common.telemetry.logs import PROCESSORS
from libs.common.telemetry.recording import OpenTelemetry, resource
from libs.common.telemetry.traces import record_with
from services.payments.domain.payment.payment import PaymentState
from tests.shared.events import payment_requested, refund_requested
from tests.shared.till import WEBHOOK_SECRET, Till

CANARIES = (
    "4242424242424242",
    "4000 0566 5566 5556",
    "5555-5555-5555-4444",
    "378282246310005",
    "sk_live_CANARY51aBcDeFgHiJkLmNoP",
    "rk_test_CANARY99zYxWvUtSrQpOnMl",
    "whsec_CANARYq1w2e3r4t5y6u7i8o9p0",
    "pi_3CANARY_secret_aBcDeFgHiJkL",
)
HEADERS = (
    *("Idempotency-Key", "X-Request-Id", "Prefer", "If-Match", "If-None-Match", "traceparent", "tracestate", "User-Agent"),
    *("Authorization", "Stripe-Signature", "Accept", "Content-Type", "Cookie", "Referer", "X-Forwarded-For", "X-Anything"),
)


class Overheard:
    """All that was said while it listened."""

    def __init__(self) -> None:
        self.lines = io.StringIO()
        self.spans = InMemorySpanExporter()
        self.answers: list[str] = []

    def heard(self, response: httpx.Response) -> httpx.Response:
        assert response.status_code < 500, response.text
        self.answers.append(f"{response.status_code} {response.headers} {response.text}")
        return response

    def told(self) -> dict[str, str]:
        return {
            "logs": self.lines.getvalue(),
            "traces": "\n".join(span.to_json() for span in self.spans.get_finished_spans()),
            "answers": "\n".join(self.answers),
        }


@pytest.fixture
def overheard() -> Iterator[Overheard]:
    overheard = Overheard()
    provider = TracerProvider(resource=resource("payments", "test"), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(overheard.spans))
    before = record_with(OpenTelemetry(provider))
    # As `configure_logging` does, but that nobody remembers it.
    structlog.configure(
        processors=[*PROCESSORS, structlog.processors.JSONRenderer(default=repr)],
        logger_factory=structlog.WriteLoggerFactory(overheard.lines),
        cache_logger_on_first_use=False,
    )
    yield overheard
    structlog.reset_defaults()
    record_with(before)


@pytest.mark.timeout(900)
async def test_no_canary_that_comes_in_anywhere_is_found_in_any_place_afterwards(
    till: Till, overheard: Overheard, request: pytest.FixtureRequest
) -> None:
    """In the short form the canaries take turns, in the long one each is put into every place."""
    ids = await _something_of_everything(till)
    every, sent = bool(request.config.getoption("--long")), 0
    for turn, canary in enumerate(CANARIES):
        mine = slice(None) if every else slice(turn, None, len(CANARIES))
        for method, path, members in list(_requests(till, ids, canary))[mine]:
            overheard.heard(await till.client.request(method, path, **members))
            sent += 1
        for body in list(_events(ids["payment_id"], till.tenant_id, canary))[mine]:
            overheard.heard(await _webhook(till, body))
            sent += 1
        await _told_by_others(till, ids["payment_id"], canary)
    await till.settle_notices()
    told = {**overheard.told(), **await _tables(till)}
    assert all(told[place] for place in ("logs", "traces", "answers", "payment", "outbox_event", "webhook_event", "refund"))
    found = {(place, canary) for place, text in told.items() for canary in CANARIES if canary in text}
    assert not found, [(place, canary, _around(told[place], canary)) for place, canary in sorted(found)]
    print(f"{len(CANARIES)} canaries in {sent} requests, {len(told)} places, 0 hits")


def _around(text: str, canary: str) -> str:
    at = text.index(canary)
    return text[max(0, at - 150) : at + 60]


# --- Where canaries go in --------------------------------------------------------------------------------------------------


async def _something_of_everything(till: Till) -> dict[str, str]:
    """A payment that is held and has a refund beside it, so that most requests get far; answers ids for the paths."""
    asked, paid = await till.request(), await till.request()
    await till.until(paid.payment_id, PaymentState.AUTHORIZED)
    await till.confirm(paid)
    await till.until(paid.payment_id, PaymentState.CAPTURED)
    await till.until(asked.payment_id, PaymentState.AUTHORIZED)
    refund = await till.post(f"{paid.payment_id}/refunds", {"amount_minor": 1, "reason": "returned"})
    return {"payment_id": str(paid.payment_id), "refund_id": refund.json()["id"], "tenant_id": str(till.tenant_id)}


def _requests(till: Till, ids: dict[str, str], canary: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each operation of the service with the canary in one place of it at a time."""
    transport: Any = till.client._transport
    document = transport.app.openapi()
    for template, operations in document["paths"].items():
        for method, operation in operations.items():
            names = [each["name"] for each in operation.get("parameters", ()) if "name" in each]
            wanted = {name: ids.get(name, str(uuid4())) for name in names}
            path, body = template.format(**wanted), _body(document, operation)
            headers = {**till.staff, "Idempotency-Key": uuid4().hex}
            content: dict[str, Any] = {} if body is None else {"json": {"reason": "x"} if "reason" in body else {}}
            for name in HEADERS:
                yield method, path, {"headers": headers | {name: canary}, **content}
            for name in names:
                yield method, template.format(**{**wanted, name: canary}), {"headers": headers, **content}
                yield method, path, {"headers": headers, "params": {name: canary}, **content}
            for name in body or ():
                for value in (canary, [canary], {canary: canary}):
                    yield method, path, {"headers": headers | {"Idempotency-Key": uuid4().hex}, "json": _with(body, name, value)}
            if body is not None:
                yield method, path, {"headers": headers, "json": {canary: canary}}
                yield method, path, {"headers": headers | {"Content-Type": "application/json"}, "content": canary}


def _body(document: Any, operation: Any) -> dict[str, Any] | None:
    """The members of an operation's body, if it takes one. The provider's is not ours: it has members of any name."""
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if schema == {"type": "object"}:
        return None
    [reference] = [each["$ref"] for each in (schema, *schema.get("anyOf", ())) if "$ref" in each]
    members: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
    return members


def _with(body: dict[str, Any] | None, name: str, value: Any) -> dict[str, Any]:
    return {**({"reason": "x"} if "reason" in (body or ()) else {}), name: value}


def _events(payment_id: str, tenant_id: UUID, canary: str) -> Iterator[dict[str, Any]]:
    """A provider's event with the canary in one member of it at a time; a refund's, because it has the most."""
    for name in ("id", "type", "account", "api_version", "created", "livemode", "request", "anything"):
        yield {**_event(payment_id, tenant_id), name: canary}
    for name in (*_event(payment_id, tenant_id)["data"]["object"], "description", "receipt_email", "payment_method_details"):
        event = _event(payment_id, tenant_id)
        event["data"]["object"][name] = canary
        yield event
        event = _event(payment_id, tenant_id)
        event["data"]["object"]["metadata"][name] = canary
        yield event


def _event(payment_id: str, tenant_id: UUID) -> dict[str, Any]:
    thing = {
        "id": f"re_{uuid4().hex}",
        "object": "refund",
        "status": "succeeded",
        "amount": 1,
        "payment_intent": f"pi_{uuid4().hex}",
        "metadata": {"tenant_id": str(tenant_id), "payment_id": payment_id},
    }
    event = {"id": f"evt_{uuid4().hex}", "object": "event", "type": "refund.updated", "livemode": False}
    return {**event, "created": int(time.time()), "data": {"object": thing}}


async def _webhook(till: Till, event: dict[str, Any]) -> httpx.Response:
    """Truly the provider's, so that it gets as far as it can."""
    body, seconds = json.dumps(event).encode(), int(time.time())
    mark = hmac.new(WEBHOOK_SECRET.encode(), b"%d.%b" % (seconds, body), hashlib.sha256).hexdigest()
    headers = {"Stripe-Signature": f"t={seconds},v1={mark}"}
    return await till.client.post(f"/v1/webhooks/stripe/{till.tenant_id}", content=body, headers=headers)


async def _told_by_others(till: Till, payment_id: str, canary: str) -> None:
    """Checkout, too, takes texts from strangers."""
    asked = payment_requested(canary)
    await till.tell(
        asked,
        refund_requested(1, payment_id=UUID(payment_id), reason=canary),
    )


# --- Where they are looked for ---------------------------------------------------------------------------------------------


TABLES = """SELECT relname FROM pg_class
WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace"""


async def _tables(till: Till) -> dict[str, str]:
    """Every table, as text; what is stored as bytes as well."""
    tables = await till.as_admin(TABLES)
    found = {}
    for (name,) in tables:
        rows = await till.as_admin(f'SELECT * FROM "{name}"')
        found[name] = "\n".join(" ".join(map(_text, row)) for row in rows)
    return found


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
