"""HTTP in: disputes to look at. They are opened and closed by the buyers' banks."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel

from libs.common.clock import NIL, rfc3339
from libs.common.errors import NotFoundError
from libs.common.http.paging import Page, decode_cursor, page
from libs.common.http.routes import Caller, Routes, guard, reply
from services.payments.domain.money.dispute import Dispute
from services.payments.domain.provider.outcome import DisputeStatus
from services.payments.repository.money import disputes as repository

ROUTES = Routes()

Limit = Annotated[int, Query(ge=1, le=200)]


class DisputeModel(BaseModel):
    """A dispute as staff see it. What was withdrawn and not reinstated is gone."""

    id: UUID
    state: str
    payment_id: UUID
    order_id: UUID
    amount_minor: int
    currency: str
    reason: str
    respond_by: str | None
    withdrawn_minor: int
    reinstated_minor: int
    fee_minor: int
    created_at: str


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
    wanted = {"payment_id": payment_id, "state": state}
    filters: dict[str, Any] = {column: value for column, value in wanted.items() if value is not None}
    after = decode_cursor(cursor, NIL, UUID)
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.disputes(connection, call.tenant_id, filters, after=after, limit=limit + 1)
    return page([dispute_model(dispute) for dispute in found], limit, lambda dispute: str(dispute.id))


@ROUTES.get("/v1/disputes/{dispute_id}", response_model=DisputeModel)
@guard("disputes:read")
async def read_dispute(call: Caller, dispute_id: UUID) -> Response:
    """One dispute."""
    async with call.shell.database.transaction([call.tenant_id]) as connection:
        found = await repository.DISPUTES.load(connection, [(call.tenant_id, dispute_id)], lock=False)
    if not found:
        raise NotFoundError("dispute-not-found", "there is no such dispute for you")
    return reply(200, dispute_model(found[0]), ETag=f'"{found[0].version}"')
