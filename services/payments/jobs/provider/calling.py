"""One try of an operation at the provider: send it, read what the answer leaves open, say in our words what it came to."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from libs.common.clock import now
from libs.common.telemetry import Counter, Gauge, Histogram, Span, call_span
from services.payments.domain.provider.concluding import conclude, wants_reading
from services.payments.domain.provider.operation import Operation, OperationKind, creation
from services.payments.domain.provider.outcome import Outcome, Throttled, Unknown, as_kept, name_of
from services.payments.gateway.looking import look_up
from services.payments.handlers.outcomes import Call

if TYPE_CHECKING:
    from services.payments.gateway.protocol import PaymentGateway

GatewayOf = Callable[[UUID], Awaitable["PaymentGateway"]]
"""A tenant's way to its provider account."""

CALLS = Counter("cartwright_provider_calls_total", "Calls to the payment provider", ["kind", "outcome"])
CALL_DURATION = Histogram("cartwright_provider_call_seconds", "From sending to the answer", ["kind"])
CALLS_IN_FLIGHT = Gauge("cartwright_provider_calls_in_flight", "Calls that have no answer yet")

log = structlog.get_logger(__name__)


async def carry_out(operation: Operation, gateway_of: GatewayOf, calls: list[Call]) -> Outcome:
    """One try, within its lease; every call that it takes is noted in `calls`. Never raises: what is not known is unknown."""
    try:
        gateway = await gateway_of(operation.tenant_id)
    except Exception as error:  # noqa: BLE001 - an account that cannot be read, whatever the reason, sends nothing
        log.warning("provider.no_account", error=f"{type(error).__name__}: {error}", action="nothing was sent; trying again")
        return Throttled(None)
    outcome = await _send(operation, gateway, calls)
    if wants_reading(operation, outcome):
        outcome = conclude(operation, outcome, await _read(operation, gateway, calls))
    return outcome


async def _send(operation: Operation, gateway: "PaymentGateway", calls: list[Call]) -> Outcome:
    if operation.is_ruled_out:
        return Unknown("not sent, for a person said that it did not happen")
    if not operation.may_send(now()):
        log.warning("operation.too_old", action="it is read or looked for, and not sent again under its key")
        return Unknown("the key is too old to be sent again", stored=True)
    return await _timed(operation, operation.kind, _request(operation, gateway), calls)


def _request(operation: Operation, gateway: "PaymentGateway") -> Awaitable[Outcome]:
    """The call, with exactly the parameters that were recorded."""
    key, parameters = operation.idempotency_key, operation.request
    match operation.kind:
        case OperationKind.CREATE:
            return gateway.create_intent(key, **creation(parameters))
        case OperationKind.CONFIRM:
            return gateway.confirm_intent(key, **parameters)
        case OperationKind.CAPTURE:
            return gateway.capture_intent(key, **parameters)
        case OperationKind.CANCEL:
            return gateway.cancel_intent(key, **parameters)
        case OperationKind.REFUND:
            return gateway.create_refund(key, **parameters)


async def _read(operation: Operation, gateway: "PaymentGateway", calls: list[Call]) -> Outcome:
    """The object as it stands; one that the operation was to make is looked for by our own id in its metadata."""
    if operation.due_at is None or not operation.is_held(now()):
        return Unknown("no time was left to read it")
    kind, call = look_up(operation, gateway)
    try:
        # A list may be long. What outlasts the lease would count for nothing, and so would every try after it.
        async with asyncio.timeout((operation.due_at - now()).total_seconds()):
            return await _timed(operation, kind, call, calls)
    except TimeoutError:
        log.warning("provider.reading_too_long", kind=kind, action="its outcome is unknown; a person may look for it")
        return Unknown(f"the provider's list was not read to its end: {kind}")


async def _timed(operation: Operation, kind: str, call: Awaitable[Outcome], calls: list[Call]) -> Outcome:
    """Make a call and measure it. Whatever else it may raise, the provider may have acted."""
    started_at, started = now(), time.perf_counter()
    with CALLS_IN_FLIGHT.track_inprogress(), _span(operation, kind) as span:
        try:
            outcome = as_kept(await call)
        except Exception as error:
            log.exception("provider.call_failed", kind=kind, action="its outcome is unknown")
            outcome = Unknown(type(error).__name__)
        span.note("cartwright.provider.outcome", name_of(outcome))
        if isinstance(outcome, Unknown):
            span.fail(name_of(outcome))
    seconds = time.perf_counter() - started
    CALLS.labels(kind, name_of(outcome)).inc()
    CALL_DURATION.labels(kind).observe(seconds)
    calls.append(Call(kind=kind, outcome=name_of(outcome), started_at=started_at, duration_ms=round(seconds * 1000)))
    return outcome


def _span(operation: Operation, kind: str) -> Span:
    attributes: dict[str, str | int] = {
        "cartwright.tenant.id": str(operation.tenant_id),
        "cartwright.payment.id": str(operation.payment_id),
        "cartwright.operation.id": str(operation.id),
        "cartwright.operation.tries": operation.tries,
    }
    return call_span(f"provider {kind}", of="payment-provider", parent=operation.traceparent, attributes=attributes)
