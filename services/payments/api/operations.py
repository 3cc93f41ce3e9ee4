"""HTTP in, for the platform's operators: outcomes that nobody knows, whosever payments they are of, and how they end."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import rfc3339
from libs.common.contracts.external import WRITTEN
from libs.common.database import Connection
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.sealing import SealError
from services.payments.api.everywhere import Key, whosever
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.operation import Operation, OperationKind, Verdict
from services.payments.domain.provider.outcome import Outcome, Throttled, as_kept
from services.payments.gateway.accounts import Access
from services.payments.gateway.looking import look_up
from services.payments.handlers.payments import Reading, ResolvePayment
from services.payments.repository.bookmark import BEGINNING, Bookmark
from services.payments.repository.payment import PAYMENTS
from services.payments.repository.provider.operations import OPERATIONS, unknown_of_payment, unknown_operations

ROUTES = Routes(Facing.CUSTOMERS)

log = structlog.get_logger(__name__)


class UnknownModel(BaseModel):
    """One outcome that nobody knows: the payment it is of, and what was asked of the provider."""

    tenant_id: UUID
    payment_id: UUID
    operation_id: UUID
    refund_id: UUID | None
    kind: OperationKind
    attempt: int
    tries: int
    awaits_person: bool
    intent_id: str | None
    amount_minor: int
    currency: str
    first_sent_at: Moment
    next_look_at: Moment | None
    outcome: dict[str, Any] | None


class Word(BaseModel):
    """What a person says of a payment's unknown outcomes. It counts once the provider was read and does not contradict."""

    model_config = ConfigDict(extra="forbid")

    tenant_id: UUID
    verdict: Verdict
    reason: Annotated[str, Field(min_length=1, max_length=500), WRITTEN]


class ResolvingModel(BaseModel):
    """Which outcomes are looked into now."""

    tenant_id: UUID
    payment_id: UUID
    state: PaymentState
    operation_ids: list[UUID]


@ROUTES.get("/ops/payments/unknown", response_model=Page[UnknownModel])
@guard("ops:read", platform_only=True)
async def list_unknown(call: Caller, tenant_id: UUID | None = None, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Outcomes that nobody knows, of all tenants or of one, the oldest first."""
    asked = Paging(limit, cursor, datetime, UUID)
    found = await _unknown(call, tenant_id, Bookmark(*asked.after) if asked.after else BEGINNING, asked.most)
    return asked.reply(found, lambda each: _model(*each), _bookmark)


@ROUTES.post("/ops/payments/{payment_id}/resolve", response_model=ResolvingModel, status_code=202)
@guard("ops:repair", platform_only=True)
async def resolve_unknown(call: Caller, payment_id: UUID, word: Word) -> Response:
    """Have a payment's unknown outcomes looked into at once, with what a person says of them."""
    readings = await read_unknown(call, word.tenant_id, payment_id)
    command = ResolvePayment(payment_id=payment_id, readings=readings, verdict=word.verdict, reason=word.reason)
    payment: Payment = await call.execute(command, tenant_id=word.tenant_id)
    keys = [each.operation_id for each in readings]
    return reply(202, ResolvingModel(tenant_id=word.tenant_id, payment_id=payment_id, state=payment.state, operation_ids=keys))


async def read_unknown(call: Call, tenant_id: UUID, payment_id: UUID) -> tuple[Reading, ...]:
    """How the provider's objects stand whose outcome is unknown here: whether a look can do anything follows from that."""
    async with call.transaction(tenant_id) as connection:
        keys = await unknown_of_payment(connection, tenant_id, payment_id)
        unknown = await OPERATIONS.load(connection, [(tenant_id, key) for key in keys], lock=False)
    readings = []
    for operation in unknown:
        seen = await _seen(call, operation)
        readings.append(Reading(operation_id=operation.id, refund_id=operation.refund_id, seen=seen))
    return tuple(readings)


async def _seen(call: Call, operation: Operation) -> Outcome:
    try:
        gateway = await call.service.shared(Access).gateways.of(operation.tenant_id)
    except SealError as error:
        log.warning("provider.no_account", error=str(error), action="answered that the provider cannot be read")
        return Throttled(None)
    _, reading = look_up(operation, gateway)
    return as_kept(await reading)


async def _unknown(call: Call, tenant_id: UUID | None, after: Bookmark, limit: int) -> Sequence[tuple[Operation, Payment]]:
    async def find(connection: Connection, after: Bookmark, limit: int) -> Mapping[Key, Bookmark]:
        return await unknown_operations(connection, tenant_id, after=after, limit=limit)

    return await whosever(call, find, _read, _bookmark, of=tenant_id, after=after, limit=limit)


async def _read(connection: Connection, keys: Sequence[Key]) -> Sequence[tuple[Operation, Payment]]:
    operations = await OPERATIONS.load(connection, keys, lock=False)
    owners = sorted({(each.tenant_id, each.payment_id) for each in operations})
    payments = {each.id: each for each in await PAYMENTS.load(connection, owners, lock=False)}
    return [(each, payments[each.payment_id]) for each in operations]


def _bookmark(found: tuple[Operation, Payment]) -> list[Any]:
    return [found[0].first_send_at, found[0].id]


def _model(operation: Operation, payment: Payment) -> UnknownModel:
    return UnknownModel(
        tenant_id=operation.tenant_id,
        payment_id=operation.payment_id,
        operation_id=operation.id,
        refund_id=operation.refund_id,
        kind=operation.kind,
        attempt=operation.attempt,
        tries=operation.tries,
        awaits_person=operation.awaits_person,
        intent_id=payment.intent_id,
        amount_minor=operation.request.get("amount_minor", payment.amount_minor),
        currency=payment.currency,
        first_sent_at=rfc3339(operation.first_send_at),
        next_look_at=rfc3339(operation.due_at) if operation.due_at else None,
        outcome=operation.outcome,
    )
