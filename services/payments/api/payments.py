"""HTTP in: payments to look at. They are made by `payment.requested` alone."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel

from libs.common.clock import rfc3339
from libs.common.errors import NotFoundError
from libs.common.http.paging import Page, decode_cursor, page
from libs.common.http.routes import Caller, Routes, guard, reply
from services.payments.domain.payment import Payment, PaymentState
from services.payments.repository import payments as repository

ROUTES = Routes()
NIL = UUID(int=0)

Limit = Annotated[int, Query(ge=1, le=200)]


class PaymentModel(BaseModel):
    """A payment as clients see it."""

    id: UUID
    state: str
    checkout_id: UUID
    order_id: UUID | None
    amount_minor: int
    currency: str
    authorized_minor: int
    captured_minor: int
    decline_code: str | None
    expires_at: str | None
    created_at: str


def payment_model(payment: Payment) -> PaymentModel:
    """A payment for an answer."""
    return PaymentModel(
        id=payment.id,
        state=payment.state,
        checkout_id=payment.checkout_id,
        order_id=payment.order_id if payment.is_requested else None,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        authorized_minor=payment.authorized_minor,
        captured_minor=payment.captured_minor,
        decline_code=payment.decline_code,
        expires_at=rfc3339(payment.expires_at) if payment.expires_at else None,
        created_at=rfc3339(payment.created_at),
    )


@ROUTES.get("/v1/payments", response_model=Page[PaymentModel])
@guard("payments:read")
async def list_payments(
    call: Caller,
    order_id: UUID | None = None,
    checkout_id: UUID | None = None,
    state: PaymentState | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> Response:
    """The tenant's payments, or the shopper's own, by id."""
    subject_id = call.principal.subject if call.principal.is_shopper else None
    wanted = {"order_id": order_id, "checkout_id": checkout_id, "state": state, "subject_id": subject_id}
    filters: dict[str, Any] = {column: value for column, value in wanted.items() if value is not None}
    after = decode_cursor(cursor, NIL, UUID)
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.payments(connection, call.tenant_id, filters, after=after, limit=limit + 1)
    return page([payment_model(payment) for payment in found], limit, lambda payment: str(payment.id))


@ROUTES.get("/v1/payments/{payment_id}", response_model=PaymentModel)
@guard("payments:read")
async def read_payment(call: Caller, payment_id: UUID) -> Response:
    """One payment."""
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.PAYMENTS.load(connection, [(call.tenant_id, payment_id)], lock=False)
    if not found or not call.principal.may_see(found[0].subject_id):
        raise NotFoundError("payment-not-found", "there is no such payment for you")
    etag = f'"{found[0].version}"'
    if call.request.headers.get("if-none-match") == etag:
        return reply(304, None, ETag=etag)
    return reply(200, payment_model(found[0]), ETag=etag)
