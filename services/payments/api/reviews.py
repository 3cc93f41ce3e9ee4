"""HTTP in: what waits for a person, in one list, with what may be done about each and what that would do."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel

from libs.common.clock import rfc3339
from libs.common.database import Connection
from libs.common.http.members import Moment
from libs.common.http.paging import Limit, Page, Paging
from libs.common.http.routes import Caller, Facing, Routes, guard
from services.payments.api.everywhere import Key, whosever
from services.payments.domain.review import MEANINGS, Action, Review, ReviewKind, actions, operators_actions
from services.payments.repository.bookmark import BEGINNING, Bookmark
from services.payments.repository.reviews import reviews_of, reviews_waiting, these_reviews

ROUTES = Routes(Facing.CUSTOMERS)


class ActionModel(BaseModel):
    """A call that may be made about it, the permission it takes, and what it does. `{reason}` is the caller's to write."""

    method: str
    path: str
    permission: str
    effect: str
    body: dict[str, Any] | None


class ReviewModel(BaseModel):
    """Something that waits for a person. `id` is the operation's, refund's, payment's, break's or dispute's."""

    kind: ReviewKind
    id: UUID
    meaning: str
    since: Moment
    payment_id: UUID | None
    refund_id: UUID | None
    reconciliation_id: UUID | None
    amount_minor: int | None
    currency: str | None
    subject: str
    why: str | None
    respond_by: Moment | None
    actions: list[ActionModel]


class OperatorsReviewModel(ReviewModel):
    """The same of any tenant."""

    tenant_id: UUID


@ROUTES.get("/v1/reviews", response_model=Page[ReviewModel])
@guard("ledger:read")
async def list_reviews(call: Caller, kind: ReviewKind | None = None, limit: Limit = 50, cursor: str | None = None) -> Response:
    """Every payment, refund, break and dispute that waits for a person, the oldest first, with what may be done about it."""
    asked, after = _paging(limit, cursor)
    async with call.transaction() as connection:
        found = await reviews_of(connection, call.tenant_id, kind, after=after, limit=asked.most)
    return asked.reply(found, lambda each: ReviewModel(**_members(each, actions)), _bookmark)


@ROUTES.get("/ops/reviews", response_model=Page[OperatorsReviewModel])
@guard("ops:read", platform_only=True)
async def list_all_reviews(
    call: Caller,
    tenant_id: UUID | None = None,
    kind: ReviewKind | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
) -> Response:
    """The same of all tenants or of one, with what operators may do about it."""
    asked, after = _paging(limit, cursor)
    if tenant_id is None:

        async def find(connection: Connection, after: Bookmark, limit: int) -> Mapping[Key, Bookmark]:
            return await reviews_waiting(connection, kind, after=after, limit=limit)

        found = await whosever(call, find, these_reviews, _bookmark, of=None, after=after, limit=asked.most)
    else:
        async with call.transaction(tenant_id) as connection:
            found = await reviews_of(connection, tenant_id, kind, after=after, limit=asked.most)
    return asked.reply(
        found, lambda each: OperatorsReviewModel(tenant_id=each.tenant_id, **_members(each, operators_actions)), _bookmark
    )


def _paging(limit: int, cursor: str | None) -> tuple[Paging, Bookmark]:
    asked = Paging(limit, cursor, datetime, UUID)
    return asked, Bookmark(*asked.after) if asked.after else BEGINNING


def _bookmark(review: Review) -> list[Any]:
    return [review.since, review.id]


def _members(review: Review, may_do: Callable[[Review], Sequence[Action]]) -> dict[str, Any]:
    return {
        "kind": review.kind,
        "id": review.id,
        "meaning": MEANINGS[review.kind],
        "since": rfc3339(review.since),
        "payment_id": review.payment_id,
        "refund_id": review.refund_id,
        "reconciliation_id": review.reconciliation_id,
        "amount_minor": review.amount_minor,
        "currency": review.currency,
        "subject": review.subject,
        "why": review.why,
        "respond_by": rfc3339(review.respond_by) if review.respond_by else None,
        "actions": [_action(each) for each in may_do(review)],
    }


def _action(action: Action) -> ActionModel:
    body = dict(action.body) or None
    return ActionModel(method=action.method, path=action.path, permission=action.permission, effect=action.effect, body=body)
