"""HTTP in: payments to look at and to act upon. They are made by `payment.requested` alone."""

from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import structlog
from fastapi import Body, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import rfc3339
from libs.common.contracts.external import WRITTEN
from libs.common.errors import UnavailableError
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply, reply_unless_known
from libs.common.http.seeing import Sight, code_for, listed
from libs.common.messaging.idempotency import Answer, Replayed
from libs.common.sealing import SealError
from services.payments.api.operations import read_unknown
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.operation import Verdict
from services.payments.domain.provider.outcome import Declined, IntentStatus, Succeeded, as_kept, name_of
from services.payments.gateway.accounts import Access
from services.payments.handlers.observations import ObserveIntent
from services.payments.handlers.payments import CapturePayment, ResolvePayment, VoidPayment
from services.payments.repository import PAYMENTS

ROUTES = Routes(Facing.CUSTOMERS)
PAYMENT = Sight(PAYMENTS, "payment_id")
MOST_MINOR = 9_000_000_000_000_000
BY_HAND = "requested"
DECLINED = "card_declined"

log = structlog.get_logger(__name__)


class CaptureRequest(BaseModel):
    """So much of what is held; no amount is all of it. `final`: what is left is let go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount_minor: Annotated[int, Field(ge=1, le=MOST_MINOR, strict=True)] | None = None
    final: bool = True


class ResolveRequest(BaseModel):
    """What a person says of an outcome that nobody knows. It counts once the provider has been read and does not object."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: Verdict
    reason: Annotated[str, Field(min_length=1, max_length=500), WRITTEN]


class NextAction(BaseModel):
    """What the payer is to do: confirm with a method, or authenticate, at `url` where there is a page for it."""

    type: Literal["confirm", "authenticate"]
    url: str | None


class PaymentModel(BaseModel):
    """A payment as clients see it. `client_secret` and `next_action` are its payer's alone, while there is something to do."""

    id: UUID
    state: PaymentState
    checkout_id: UUID
    order_id: UUID | None
    amount_minor: int
    currency: str
    capture: str
    confirmation: str
    authorized_minor: int
    captured_minor: int
    refunding_minor: int
    refunded_minor: int
    decline_code: Annotated[
        str | None, Field(description="What the issuer said; a shopper reads `card_declined` where that is of no use to them")
    ]
    expires_at: Moment | None
    created_at: Moment
    client_secret: str | None = None
    next_action: NextAction | None = None


def payment_model(call: Call, payment: Payment, seen: Succeeded | None = None) -> PaymentModel:
    """A payment for an answer, with what its payer alone may see."""
    return PaymentModel(
        id=payment.id,
        state=payment.state,
        checkout_id=payment.checkout_id,
        order_id=payment.order_id if payment.is_requested else None,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        capture=payment.capture,
        confirmation=payment.confirmation,
        authorized_minor=payment.authorized_minor,
        captured_minor=payment.captured_minor,
        refunding_minor=payment.refunding_minor,
        refunded_minor=payment.refunded_minor,
        decline_code=code_for(call, payment.decline_code, DECLINED),
        expires_at=rfc3339(payment.expires_at) if payment.expires_at else None,
        created_at=rfc3339(payment.created_at),
        client_secret=seen.client_secret if seen else None,
        next_action=_next_action(seen) if seen else None,
    )


def _next_action(seen: Succeeded) -> NextAction | None:
    match seen.status:
        case IntentStatus.NEEDS_METHOD | IntentStatus.NEEDS_CONFIRMATION:
            return NextAction(type="confirm", url=None)
        case IntentStatus.NEEDS_ACTION:
            return NextAction(type="authenticate", url=seen.action_url)
        case IntentStatus.PROCESSING | IntentStatus.AUTHORIZED | IntentStatus.CAPTURED | IntentStatus.CANCELED:
            return None


# --- Looking ------------------------------------------------------------------------------------------------------


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
    where = {"order_id": order_id, "checkout_id": checkout_id, "state": state}
    return await listed(call, PAYMENTS, partial(payment_model, call), limit, cursor, where=where)


@ROUTES.get("/v1/payments/{payment_id}", response_model=PaymentModel)
@guard("payments:read", sees=PAYMENT)
async def read_payment(call: Caller, payment_id: UUID) -> Response:
    """One payment; to its payer, with what they are to do."""
    payment = await PAYMENT.of(call, payment_id)
    if payment.intent_id is not None and _is_payers_turn(call, payment):
        return await _read_for_payer(call, payment, payment.intent_id)
    return reply_unless_known(call, lambda: payment_model(call, payment), payment.version)


def _is_payers_turn(call: Call, payment: Payment) -> bool:
    is_payer = call.principal.is_shopper and call.principal.subject == payment.subject_id
    return is_payer and payment.state is PaymentState.REQUIRES_ACTION


async def _read_for_payer(call: Call, payment: Payment, intent_id: str) -> Response:
    """What only the payer may see is kept nowhere: it is read now. If the payer has done their part, that is noticed too."""
    try:
        gateway = await call.service.shared(Access).gateways.of(payment.tenant_id)
    except SealError as error:
        raise UnavailableError("provider-unavailable", "the payment cannot be read from the provider just now") from error
    seen = as_kept(await gateway.retrieve_intent(intent_id))
    if not isinstance(seen, Succeeded | Declined):
        log.warning("payment.not_read", payment_id=str(payment.id), outcome=name_of(seen), action="answered without the secret")
        return reply(200, payment_model(call, payment), Cache_Control="no-store")
    if isinstance(seen, Declined) or seen.status in {IntentStatus.AUTHORIZED, IntentStatus.CAPTURED, IntentStatus.CANCELED}:
        await call.execute(ObserveIntent(payment_id=payment.id, seen=seen, by_api=True))
        payment = await PAYMENT.of(call, payment.id)
    shown = seen if isinstance(seen, Succeeded) and _is_payers_turn(call, payment) else None
    return reply(200, payment_model(call, payment, shown), Cache_Control="no-store")


AT_ONCE: dict[int | str, dict[str, Any]] = {200: {"model": PaymentModel, "description": "There is nothing to wait for"}}


# --- Acting -------------------------------------------------------------------------------------------------------


@ROUTES.post("/v1/payments/{payment_id}/capture", response_model=PaymentModel, status_code=202, responses=AT_ONCE)
@guard("payments:capture", idempotent=True, sees=PAYMENT, goes_on=True)
async def capture_payment(call: Caller, payment_id: UUID, wanted: Annotated[CaptureRequest | None, Body()] = None) -> Response:
    """Take so much of what is held, or all of it."""
    wanted = wanted or CaptureRequest()
    return await _act(call, CapturePayment(payment_id=payment_id, amount_minor=wanted.amount_minor, final=wanted.final))


@ROUTES.post("/v1/payments/{payment_id}/void", response_model=PaymentModel, status_code=202, responses=AT_ONCE)
@guard("payments:void", idempotent=True, sees=PAYMENT, goes_on=True)
async def void_payment(call: Caller, payment_id: UUID) -> Response:
    """Let go of what is held."""
    return await _act(call, VoidPayment(payment_id=payment_id, reason=BY_HAND))


@ROUTES.post("/v1/payments/{payment_id}/resolve", response_model=PaymentModel, status_code=202, responses=AT_ONCE)
@guard("payments:resolve", idempotent=True, sees=PAYMENT, goes_on=True)
async def resolve_payment(call: Caller, payment_id: UUID, wanted: ResolveRequest) -> Response:
    """Have the payment's unknown outcomes looked into now. `did-not-happen` counts if the provider's object agrees.

    409 where no look can bring them to an end, with what is in the way and what to do about it.
    """
    readings = await read_unknown(call, call.tenant_id, payment_id)
    command = ResolvePayment(payment_id=payment_id, readings=readings, verdict=wanted.verdict, reason=wanted.reason)
    return await _act(call, command)


async def _act(call: Call, command: CapturePayment | VoidPayment | ResolvePayment) -> Response:
    """202 while the provider is being asked, 200 once there is nothing to wait for; a repetition shows the payment as it is."""

    def remember(payment: Payment) -> Answer:
        return Answer(202, headers={"resource": str(payment.id)})

    done: Any = await call.execute_once(command, remember)
    replayed = isinstance(done, Replayed)
    payment = await PAYMENT.of(call, UUID(done.answer.headers["resource"])) if replayed else done
    headers = {"Idempotent_Replayed": "true"} if replayed else {}
    status = 200 if payment.operation_id is None else 202
    return reply(
        status, payment_model(call, payment), Location=f"/v1/payments/{payment.id}", ETag=f'"{payment.version}"', **headers
    )
