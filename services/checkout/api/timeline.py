"""HTTP in: what happened on an order's way, and why."""

from typing import Any
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel

from libs.common.auth import Principal
from libs.common.clock import rfc3339
from libs.common.http.members import Moment
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from services.checkout import repository
from services.checkout.api.checkouts import CHECKOUT
from services.checkout.api.orders import ORDER
from services.checkout.domain.timeline import EntryKind, Told, tell

ROUTES = Routes(Facing.CUSTOMERS)


class CauseModel(BaseModel):
    """What led to an entry. `inferred`: nobody said so; it is how things are connected here."""

    id: str
    name: str
    inferred: bool


class TimelineEntryModel(BaseModel):
    """Something that happened. `after_ms` is the time from the end of its cause."""

    id: str
    at: Moment
    service: str
    kind: EntryKind
    name: str
    cause: CauseModel | None
    after_ms: int | None
    duration_ms: int | None
    trace_id: str | None
    actor: str | None
    retry: bool
    compensation: bool
    details: dict[str, Any]


class TimelineModel(BaseModel):
    """The whole story, in order: a cause stands before its effects, whatever the services' clocks said."""

    checkout_id: UUID
    order_id: UUID
    number: int | None
    trace_ids: list[str]
    items: list[TimelineEntryModel]


STAFF_ONLY = frozenset({"code", "outcome", "attempt"})
"""What issuers and the provider said exactly: whoever tries stolen cards must not learn it."""


def entry_model(told: Told, principal: Principal) -> TimelineEntryModel:
    """An entry for an answer; a shopper is not told who of the staff did it, nor what was said of the card."""
    entry, cause = told.entry, told.cause
    details = {name: value for name, value in entry.details.items() if not (principal.is_shopper and name in STAFF_ONLY)}
    is_told = not principal.is_shopper or entry.actor == str(principal.subject)
    return TimelineEntryModel(
        id=entry.event_id,
        at=rfc3339(entry.at),
        service=entry.service,
        kind=entry.kind,
        name=entry.name,
        cause=CauseModel(id=cause.id, name=cause.name, inferred=cause.is_inferred) if cause else None,
        after_ms=told.after_ms,
        duration_ms=entry.duration_ms,
        trace_id=entry.trace_id,
        actor=entry.actor if is_told else None,
        retry=told.is_retry,
        compensation=told.is_compensation,
        details=details,
    )


async def _story(call: Call, checkout_id: UUID, order_id: UUID, number: int | None) -> Response:
    async with call.transaction() as connection:
        story = tell(await repository.timeline.entries(connection, call.tenant_id, [checkout_id, order_id]))
    traces = dict.fromkeys(told.entry.trace_id for told in story if told.entry.trace_id)
    items = [entry_model(told, call.principal) for told in story]
    model = TimelineModel(checkout_id=checkout_id, order_id=order_id, number=number, trace_ids=list(traces), items=items)
    return reply(200, model)


@ROUTES.get("/v1/orders/{order_id}/timeline", response_model=TimelineModel)
@guard("orders:read", sees=ORDER)
async def read_timeline(call: Caller, order_id: UUID) -> Response:
    """All that happened on an order's way, in every service. It is a moment behind what it tells of."""
    order = await ORDER.of(call, order_id)
    return await _story(call, order.checkout_id, order.id, order.number)


@ROUTES.get("/v1/checkouts/{checkout_id}/timeline", response_model=TimelineModel)
@guard("checkouts:read", sees=CHECKOUT)
async def read_checkout_timeline(call: Caller, checkout_id: UUID) -> Response:
    """The same of a checkout, which may have become no order."""
    checkout = await CHECKOUT.of(call, checkout_id)
    return await _story(call, checkout.id, checkout.order_id, None)
