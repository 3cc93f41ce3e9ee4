"""HTTP in: the orders that checkouts became."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from libs.common.clock import rfc3339
from libs.common.contracts.external import WRITTEN, Sku
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply, reply_unless_known
from libs.common.http.seeing import Sight, code_for, listed
from libs.common.messaging.idempotency import Answer, Replayed
from services.checkout import handlers, repository
from services.checkout.api.models import (
    AddressModel,
    Body,
    DiscountModel,
    Email,
    LineModel,
    address_model,
    discount_model,
    line_model,
)
from services.checkout.domain.note import Note
from services.checkout.domain.order import FulfilmentState, Order, OrderState, PaymentState
from services.checkout.domain.refund import Refund, RefundState

ROUTES = Routes(Facing.CUSTOMERS)
REFUND_FAILED = "refund_failed"
ORDER = Sight(repository.ORDERS, "order_id")


class QuantityModel(BaseModel):
    """So many of one line."""

    line_id: str
    quantity: int


class RefundModel(BaseModel):
    """A refund as clients see it."""

    id: UUID
    order_id: UUID
    state: RefundState
    code: str | None
    amount_minor: int
    currency: str
    lines: list[QuantityModel]
    restock: bool
    reason: str
    requested_at: Moment


class OrderModel(BaseModel):
    """An order as clients see it. Its refunds are told with one order, not in lists."""

    id: UUID
    number: int
    state: OrderState
    reason: str | None
    payment_state: Annotated[
        PaymentState | None,
        Field(description="`captured` also if there was nothing to pay; absent if it is off and no money is held"),
    ]
    fulfilment_state: FulfilmentState
    currency: str
    lines: list[LineModel]
    discounts: list[DiscountModel]
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    tax_minor: int
    tax_included: Annotated[bool, Field(description="The tax is part of the prices: shown, and not added")]
    total_minor: int
    captured_minor: int
    refunded_minor: int
    refunds: list[RefundModel] | None
    shipping_method: str | None
    shipping_address: AddressModel | None
    quote_hash: str | None
    checkout_id: UUID
    payment_id: Annotated[UUID | None, Field(description="Absent if there was nothing to pay")]
    subject_id: UUID
    placed_at: Moment


class NewNote(Body):
    """Something to write down about an order."""

    body: Annotated[str, Field(min_length=1, max_length=4_000), WRITTEN]


class NoteModel(BaseModel):
    """What somebody of the staff wrote down."""

    id: UUID
    order_id: UUID
    body: str
    author: str
    written_at: Moment


class NotesModel(BaseModel):
    """An order's notes, the oldest first."""

    items: list[NoteModel]


def refund_model(call: Call, refund: Refund) -> RefundModel:
    """A refund for an answer."""
    return RefundModel(
        id=refund.id,
        order_id=refund.order_id,
        state=refund.state,
        code=code_for(call, refund.code, REFUND_FAILED),
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        lines=[QuantityModel(line_id=line.line_id, quantity=line.quantity) for line in refund.lines],
        restock=refund.restock,
        reason=refund.reason,
        requested_at=rfc3339(refund.requested_at),
    )


def order_model(order: Order, refunds: list[RefundModel] | None = None) -> OrderModel:
    """An order for an answer."""
    return OrderModel(
        id=order.id,
        number=order.number,
        state=order.state,
        reason=order.reason,
        payment_state=None if order.payment_state is PaymentState.NONE else order.payment_state,
        fulfilment_state=order.fulfilment_state,
        currency=order.currency,
        lines=[line_model(line) for line in order.lines],
        discounts=[discount_model(each) for each in order.discounts],
        subtotal_minor=order.subtotal_minor,
        discount_minor=order.discount_minor,
        shipping_minor=order.shipping_minor,
        tax_minor=order.tax_minor,
        tax_included=order.tax_included,
        total_minor=order.total_minor,
        captured_minor=order.captured_minor,
        refunded_minor=order.refunded_minor,
        refunds=refunds,
        shipping_method=order.shipping_method,
        shipping_address=address_model(order.shipping_address),
        quote_hash=order.quote_hash,
        checkout_id=order.checkout_id,
        payment_id=order.payment_id if order.total_minor else None,
        subject_id=order.subject_id,
        placed_at=rfc3339(order.placed_at),
    )


def note_model(note: Note) -> NoteModel:
    """A note for an answer."""
    return NoteModel(id=note.id, order_id=note.order_id, body=note.body, author=note.author, written_at=rfc3339(note.written_at))


@ROUTES.get("/v1/orders", response_model=Page[OrderModel])
@guard("orders:read")
async def list_orders(
    call: Caller,
    limit: Limit = 50,
    cursor: str | None = None,
    state: OrderState | None = None,
    payment_state: PaymentState | None = None,
    number: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    sku: Sku | None = None,
    email: Email | None = None,
    subject_id: UUID | None = None,
    placed_after: AwareDatetime | None = None,
    placed_before: AwareDatetime | None = None,
) -> Response:
    """Orders, newest first: a shopper's own, or the tenant's. `email` is the one that an order was placed with."""
    where = {
        "number": number,
        "subject_id": subject_id,
        "state": state,
        "payment_state": payment_state,
        repository.orders.HAS_SKU: sku,
        repository.orders.HAS_EMAIL: email.lower() if email else None,
        "placed_at >": placed_after,
        "placed_at <": placed_before,
    }
    return await listed(call, repository.ORDERS, order_model, limit, cursor, by=["number"], newest_first=True, where=where)


async def load_order(call: Call, order_id: UUID) -> tuple[Order, list[Refund]]:
    """One order with its refunds, if it is any of the caller's business."""
    async with call.transaction() as connection:
        # The order after its refunds: what one of them has come to is in the order's sums then, and never missing from them.
        refunds = await repository.orders.refunds(connection, call.tenant_id, order_id)
        order = await ORDER.within(connection, call, order_id)
    return order, list(refunds)


def _told(call: Call, order: Order, refunds: list[Refund]) -> OrderModel:
    return order_model(order, [refund_model(call, refund) for refund in refunds])


def _version(order: Order, refunds: list[Refund]) -> int:
    """Of all that is told of an order: the sum rises whenever any of it changes, also between two reads of one answer."""
    return order.version + sum(refund.version for refund in refunds)


@ROUTES.get("/v1/orders/{order_id}", response_model=OrderModel)
@guard("orders:read", sees=ORDER)
async def read_order(call: Caller, order_id: UUID) -> Response:
    """One order, with its refunds."""
    order, refunds = await load_order(call, order_id)
    return reply_unless_known(call, lambda: _told(call, order, refunds), _version(order, refunds))


@ROUTES.post("/v1/orders/{order_id}/cancel", status_code=202, response_model=OrderModel)
@guard("orders:write", idempotent=True, sees=ORDER, goes_on=True)
async def cancel_order(call: Caller, order_id: UUID) -> Response:
    """Call an order off before its money is taken; payments lets go of it. 409 once it was taken: refund it instead."""
    command = handlers.orders.CancelOrder(order_id=order_id, caller=call.viewer)
    answer: Any = await call.execute_once(command, lambda order: Answer(0, headers={"resource": str(order.id)}))
    order, refunds = await load_order(call, order_id)
    replayed = {"Idempotent_Replayed": "true"} if isinstance(answer, Replayed) else {}
    return reply(202, _told(call, order, refunds), ETag=f'"{_version(order, refunds)}"', **replayed)


@ROUTES.post("/v1/orders/{order_id}/notes", status_code=201, response_model=NoteModel)
@guard("orders:write", sees=ORDER)
async def write_note(call: Caller, order_id: UUID, body: NewNote) -> Response:
    """Write something down about an order. Buyers never see it."""
    note = await call.execute(handlers.orders.WriteNote(order_id=order_id, caller=call.viewer, body=body.body))
    return reply(201, note_model(note), Location=f"/v1/orders/{order_id}/notes")


@ROUTES.get("/v1/orders/{order_id}/notes", response_model=NotesModel)
@guard("orders:write", sees=ORDER)
async def list_notes(call: Caller, order_id: UUID) -> Response:
    """What staff wrote down about an order, the oldest first."""
    async with call.transaction() as connection:
        await ORDER.within(connection, call, order_id)
        notes = await repository.orders.notes(connection, call.tenant_id, order_id)
    return reply(200, NotesModel(items=[note_model(note) for note in notes]))
