"""HTTP in: disputes to look at. They are opened and closed by the buyers' banks."""

from uuid import UUID

from fastapi import Response
from pydantic import BaseModel

from libs.common.clock import rfc3339
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page
from libs.common.http.routes import Caller, Facing, Routes, guard, reply
from libs.common.http.seeing import Sight, listed
from services.payments.domain.money.dispute import Dispute
from services.payments.domain.provider.outcome import DisputeStatus
from services.payments.repository import DISPUTES

ROUTES = Routes(Facing.CUSTOMERS)
DISPUTE = Sight(DISPUTES, "dispute_id")


class DisputeModel(BaseModel):
    """A dispute as staff see it. What was withdrawn and not reinstated is gone."""

    id: UUID
    state: DisputeStatus
    payment_id: UUID
    order_id: UUID
    amount_minor: int
    currency: str
    reason: str
    respond_by: Moment | None
    withdrawn_minor: int
    reinstated_minor: int
    fee_minor: int
    fee_currency: str
    created_at: Moment


def dispute_model(dispute: Dispute) -> DisputeModel:
    """A dispute for an answer."""
    return DisputeModel(
        id=dispute.id,
        state=dispute.state,
        payment_id=dispute.payment_id,
        order_id=dispute.order_id,
        amount_minor=dispute.amount_minor,
        currency=dispute.currency,
        reason=dispute.reason,
        respond_by=rfc3339(dispute.respond_by) if dispute.respond_by else None,
        withdrawn_minor=dispute.withdrawn_minor,
        reinstated_minor=dispute.reinstated_minor,
        fee_minor=dispute.fee_minor,
        fee_currency=dispute.fee_currency or dispute.currency,
        created_at=rfc3339(dispute.created_at),
    )


@ROUTES.get("/v1/disputes", response_model=Page[DisputeModel])
@guard("disputes:read")
async def list_disputes(
    call: Caller,
    payment_id: UUID | None = None,
    state: DisputeStatus | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> Response:
    """The tenant's disputes, by id."""
    return await listed(call, DISPUTES, dispute_model, limit, cursor, where={"payment_id": payment_id, "state": state})


@ROUTES.get("/v1/disputes/{dispute_id}", response_model=DisputeModel)
@guard("disputes:read", sees=DISPUTE)
async def read_dispute(call: Caller, dispute_id: UUID) -> Response:
    """One dispute."""
    dispute = await DISPUTE.of(call, dispute_id)
    return reply(200, dispute_model(dispute), ETag=f'"{dispute.version}"')
