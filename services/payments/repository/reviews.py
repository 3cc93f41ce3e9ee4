"""What waits for a person, by page and the oldest first, and how many there are."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import asyncpg

from libs.common.database import Connection
from services.payments.domain.review import Review, ReviewKind
from services.payments.repository.bookmark import Bookmark

REVIEW = """
SELECT o.tenant_id, 'outcome-unknown' AS kind, o.id, o.first_send_at AS since, o.payment_id, o.refund_id,
    NULL::uuid AS reconciliation_id, coalesce((o.request ->> 'amount_minor')::bigint, p.amount_minor) AS amount_minor,
    p.currency, o.kind AS subject, o.outcome ->> 'reason' AS why, NULL::timestamptz AS respond_by
FROM operation o JOIN payment p ON p.tenant_id = o.tenant_id AND p.id = o.payment_id
WHERE o.state = 'unknown' AND o.unknown_count >= 4
UNION ALL
SELECT r.tenant_id, 'refund-failed', r.id, r.created_at, r.payment_id, r.id, NULL, r.amount_minor, r.currency, r.reason,
    r.failure_code, NULL
FROM refund r JOIN payment p ON p.tenant_id = r.tenant_id AND p.id = r.payment_id
WHERE r.state IN ('failed', 'canceled') AND r.closed_at IS NULL AND p.captured_minor > p.refunding_minor + p.refunded_minor
    AND (p.order_standing = 'confirmed' OR p.order_asked_at IS NULL)
UNION ALL
SELECT tenant_id, 'money-without-order', id, created_at, id, NULL, NULL, captured_minor - refunding_minor - refunded_minor,
    currency, order_standing, void_reason, NULL
FROM payment
WHERE captured_minor > refunding_minor + refunded_minor AND order_standing <> 'confirmed' AND order_asked_at IS NOT NULL
UNION ALL
SELECT tenant_id, 'break-open', id, first_seen_at, payment_id, NULL, reconciliation_id,
    coalesce((ours ->> 'amount_minor')::bigint, (theirs ->> 'amount_minor')::bigint), currency, subject, kind, NULL
FROM reconciliation_break WHERE closed_at IS NULL
UNION ALL
SELECT tenant_id, 'dispute-wants-evidence', id, created_at, payment_id, NULL, NULL, amount_minor, currency, state, reason,
    respond_by
FROM dispute WHERE state IN ('warning_needs_response', 'needs_response')"""
"""What waits and why; each kind by its own index. The functions of the owner say the same of all tenants.

A call waits once it has been unknown `SURE_AFTER` times: by the ladder twelve minutes. A failed refund waits for as long as
there is money to give back; that of a payment without an order is the payment's, and tried again with it.
"""

OF_TENANT = f"""SELECT * FROM ({REVIEW}) AS review WHERE tenant_id = $1 AND ($2::text IS NULL OR kind = $2)
AND (since, id) > ($3, $4) ORDER BY since, id LIMIT $5"""  # noqa: S608 - our own query

WAITING = "SELECT tenant_id, id, since FROM reviews_waiting($1, $2, $3, $4)"

THESE = f"""SELECT review.* FROM ({REVIEW}) AS review
JOIN unnest($1::uuid[], $2::uuid[]) AS k(tenant_id, id) ON review.tenant_id = k.tenant_id AND review.id = k.id
ORDER BY review.since, review.id"""  # noqa: S608 - our own query

COUNTED = "SELECT kind, review_count FROM reviews_counted()"


async def reviews_of(
    connection: Connection, tenant_id: UUID, kind: ReviewKind | None, *, after: Bookmark, limit: int
) -> Sequence[Review]:
    """One page of what waits at a tenant's."""
    return [_review(row) for row in await connection.fetch(OF_TENANT, tenant_id, kind, *after, limit)]


async def reviews_waiting(
    connection: Connection, kind: ReviewKind | None, *, after: Bookmark, limit: int
) -> Mapping[tuple[UUID, UUID], Bookmark]:
    """One page of what waits, whosever it is: (tenant, id), and where each stands in the list."""
    rows = await connection.fetch(WAITING, kind, *after, limit)
    return {(row["tenant_id"], row["id"]): Bookmark(row["since"], row["id"]) for row in rows}


async def these_reviews(connection: Connection, keys: Iterable[tuple[UUID, UUID]]) -> Sequence[Review]:
    """What still waits of these."""
    tenants, ids = zip(*keys, strict=True)
    return [_review(row) for row in await connection.fetch(THESE, tenants, ids)]


async def count_reviews(connection: Connection) -> Mapping[ReviewKind, int]:
    """Over all tenants, how many wait of each kind."""
    counted = {row["kind"]: row["review_count"] for row in await connection.fetch(COUNTED)}
    return {kind: counted.get(kind, 0) for kind in ReviewKind}


def _review(row: asyncpg.Record) -> Review:
    return Review(**{**row, "kind": ReviewKind(row["kind"])})
