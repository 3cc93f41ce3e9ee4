"""HTTP in: give money back, and look at how that goes."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import new_id, rfc3339
from libs.common.contracts.external import WRITTEN
from libs.common.http.members import Moment
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply, reply_unless_known
from libs.common.http.seeing import Sight, code_for
from libs.common.messaging.idempotency import Answer, Replayed
from services.payments.api.payments import PAYMENT
from services.payments.domain.money.refund import Refund, RefundState
from services.payments.handlers.refunds import CloseRefund, RequestRefund
from services.payments.repository import REFUNDS

FAILED = "refund_failed"
ROUTES = Routes(Facing.CUSTOMERS)
REFUND = Sight(REFUNDS, "refund_id", as_its=(PAYMENT, "payment_id"))
MOST_MINOR = 9_000_000_000_000_000


class NewPaymentRefund(BaseModel):
    """So much of a payment, and why; no amount is all that is left."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount_minor: Annotated[int, Field(ge=1, le=MOST_MINOR, strict=True)] | None = None
    reason: Annotated[str, Field(min_length=1, max_length=200), WRITTEN]


class RefundModel(BaseModel):
    """A refund as clients see it."""

    id: UUID
    state: RefundState
    payment_id: UUID
    order_id: UUID
    amount_minor: int
    currency: str
    reason: str
    failure_code: Annotated[str | None, Field(description="To a shopper always `refund_failed`")]
    created_at: Moment


def refund_model(call: Call, refund: Refund) -> RefundModel:
    """A refund for an answer."""
    return RefundModel(
        id=refund.id,
        state=refund.state,
        payment_id=refund.payment_id,
        order_id=refund.order_id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        reason=refund.reason,
        failure_code=code_for(call, refund.failure_code, FAILED),
        created_at=rfc3339(refund.created_at),
    )


@ROUTES.post("/v1/payments/{payment_id}/refunds", response_model=RefundModel, status_code=202)
@guard("refunds:write", idempotent=True, sees=PAYMENT, goes_on=True)
async def refund_payment(call: Caller, payment_id: UUID, wanted: NewPaymentRefund) -> Response:
    """Give so much of a captured payment back, or all that is left of it."""
    command = RequestRefund(payment_id=payment_id, refund_id=new_id(), amount_minor=wanted.amount_minor, reason=wanted.reason)

    def remember(refund: Refund) -> Answer:
        return Answer(202, headers={"resource": str(refund.id)})

    made: Any = await call.execute_once(command, remember)
    if isinstance(made, Replayed):
        return _accepted(call, await REFUND.of(call, UUID(made.answer.headers["resource"])), Idempotent_Replayed="true")
    return _accepted(call, made)


def _accepted(call: Call, refund: Refund, **headers: str) -> Response:
    return reply(202, refund_model(call, refund), Location=f"/v1/refunds/{refund.id}", **headers)


@ROUTES.get("/v1/refunds/{refund_id}", response_model=RefundModel)
@guard("payments:read", sees=REFUND)
async def read_refund(call: Caller, refund_id: UUID) -> Response:
    """One refund; a shopper sees those of their own payments."""
    refund = await REFUND.of(call, refund_id)
    return reply_unless_known(call, lambda: refund_model(call, refund), refund.version)


# --- Those that failed, once a person has seen to them ------------------------------------------------------------


class CloseRefundRequest(BaseModel):
    """How its buyer was seen to, or why nothing is left to do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, Field(min_length=1, max_length=500), WRITTEN]


@ROUTES.post("/v1/refunds/{refund_id}/close", response_model=RefundModel)
@guard("payments:resolve", idempotent=True, sees=REFUND, goes_on=True)
async def close_refund(call: Caller, refund_id: UUID, wanted: CloseRefundRequest) -> Response:
    """Look at a refund that failed no more, as of a buyer who was paid in another way. No money moves; it stays failed."""
    command = CloseRefund(refund_id=refund_id, reason=wanted.reason)
    done: Any = await call.execute_once(command, lambda closed: Answer(200, headers={"resource": str(closed.id)}))
    if isinstance(done, Replayed):
        return reply(200, refund_model(call, await REFUND.of(call, refund_id)), Idempotent_Replayed="true")
    return reply(200, refund_model(call, done))


class OperatorsCloseRefundRequest(CloseRefundRequest):
    """The same of any tenant's refund."""

    tenant_id: UUID


@ROUTES.post("/ops/refunds/{refund_id}/close", response_model=RefundModel)
@guard("ops:repair", platform_only=True)
async def close_any_refund(call: Caller, refund_id: UUID, wanted: OperatorsCloseRefundRequest) -> Response:
    """Look at a tenant's refund that failed no more."""
    command = CloseRefund(refund_id=refund_id, reason=wanted.reason)
    closed: Refund = await call.execute(command, tenant_id=wanted.tenant_id)
    return reply(200, refund_model(call, closed))
