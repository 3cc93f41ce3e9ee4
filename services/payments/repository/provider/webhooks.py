"""What the provider told us: stored once, taken up in batches, settled."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from libs.common.database import Connection, fetch
from libs.common.standings import elsewhere
from services.payments.domain.money.refund import Refund
from services.payments.domain.payment.payment import Payment
from services.payments.domain.provider.webhook import Notice, Result, Subject, TakenNotice
from services.payments.repository.money.refunds import REFUNDS
from services.payments.repository.payment import PAYMENTS

# Whether its tenant is here is looked into by the statement that stores it: whoever takes a tenant away waits for that.
STORE = """WITH left_for AS (SELECT cell FROM tenant WHERE tenant_id = $1 AND cell <> $14),
stored AS (
    INSERT INTO webhook_event (tenant_id, id, type, subject, object_id, intent_id, payment_id, status, amount_minor,
        livemode, account, occurred_at, received_at, attempts, due_at, result)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now(), 0, CASE WHEN $13::text IS NULL THEN now() END, $13
    WHERE NOT EXISTS (SELECT FROM erasure WHERE tenant_id = $1) AND NOT EXISTS (SELECT FROM left_for)
    ON CONFLICT DO NOTHING RETURNING true)
SELECT EXISTS (SELECT FROM stored) AS is_new, (SELECT cell FROM left_for) AS cell"""

DUE = "SELECT tenant_id, id FROM webhook_events_due($1)"

# Its lock is held to the end of the transaction, which settles it or gives it a lease.
TAKE = """SELECT w.tenant_id, w.id, w.subject, w.object_id, w.intent_id, w.payment_id, w.status, w.amount_minor,
    w.attempts + 1 AS tries
FROM webhook_event w JOIN unnest($1::uuid[], $2::text[]) AS k(tenant_id, id) ON w.tenant_id = k.tenant_id AND w.id = k.id
WHERE w.due_at <= now() FOR UPDATE OF w SKIP LOCKED"""

# The tries (its column is `attempts`) tell whether it is still ours: whoever took it up meanwhile has raised them.
SETTLE = """UPDATE webhook_event w SET attempts = k.tries, result = k.result,
    due_at = CASE WHEN k.result IS NULL THEN now() + k.wait END
FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::interval[])
    AS k(tenant_id, id, tries, result, wait)
WHERE w.tenant_id = k.tenant_id AND w.id = k.id AND w.attempts <= k.tries AND w.due_at IS NOT NULL"""

OF_INTENTS = """SELECT p.tenant_id, p.intent_id, p.id FROM payment p
JOIN unnest($1::uuid[], $2::text[]) AS k(tenant_id, intent_id) ON p.tenant_id = k.tenant_id AND p.intent_id = k.intent_id"""

REFUNDS_BY_NAME = """SELECT r.* FROM refund r
JOIN unnest($1::uuid[], $2::text[]) AS k(tenant_id, provider_id) ON r.tenant_id = k.tenant_id AND r.provider_id = k.provider_id"""

OWNERS = "SELECT tenant_id FROM webhook_owners($1, $2)"
WAITING = "SELECT waiting_count, oldest_seconds FROM webhook_events_waiting()"
FORGET = "SELECT webhook_events_forget($1, $2)"


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a notice that was taken up: over, or due again after a wait."""

    notice: TakenNotice
    result: Result | None = None
    wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the things that some notices are about."""

    payments: Mapping[tuple[UUID, UUID], Payment]
    of_intent: Mapping[tuple[UUID, str], UUID]
    refunds: Mapping[tuple[UUID, str], Refund]

    def payment(self, notice: TakenNotice) -> Payment | None:
        """The payment that a notice is about: as its object's metadata says, or by the provider's payment."""
        payment_id = notice.payment_id
        if payment_id is None and notice.intent_id is not None:
            payment_id = self.of_intent.get((notice.tenant_id, notice.intent_id))
        return None if payment_id is None else self.payments.get((notice.tenant_id, payment_id))

    def refund(self, notice: TakenNotice) -> Refund | None:
        """The refund that a notice is about, by the provider's name for it."""
        return self.refunds.get((notice.tenant_id, notice.object_id))


async def store(connection: Connection, tenant_id: UUID, notice: Notice, *, cell: str | None = None, ends: bool = False) -> bool:
    """Store a notice in this cell's database; answers whether it was new. One of no interest is over at once.

    Raises ElsewhereError for a tenant of another cell.
    """
    result = Result.OF_NO_INTEREST if notice.subject is Subject.OTHER else None
    [stored] = await fetch(
        connection,
        STORE,
        tenant_id,
        notice.id,
        notice.type,
        notice.subject,
        notice.object_id,
        notice.intent_id,
        notice.payment_id,
        notice.status,
        notice.amount_minor,
        notice.livemode,
        notice.account,
        notice.occurred_at,
        result,
        cell,
        ends=ends,
    )
    if stored["cell"] is not None:
        raise elsewhere(stored["cell"])
    return bool(stored["is_new"])


async def owners_of(connection: Connection, notice: Notice) -> Sequence[UUID]:
    """Whose account a notice of the platform names; if it names none, whose payment it is about."""
    return [row["tenant_id"] for row in await connection.fetch(OWNERS, notice.account, notice.intent_id)]


async def due_notices(connection: Connection, how_many: int) -> Sequence[tuple[UUID, str]]:
    """Notices, whosever they are, that wait to be taken up: (tenant, id), the longest due first."""
    return [(row["tenant_id"], row["id"]) for row in await connection.fetch(DUE, how_many)]


async def take_notices(connection: Connection, due: Sequence[tuple[UUID, str]]) -> Sequence[TakenNotice]:
    """Take up what is still due, for as long as the transaction lasts, and without waiting for anybody."""
    rows = await connection.fetch(TAKE, [tenant for tenant, _ in due], [key for _, key in due])
    return [_taken(row) for row in rows]


def _taken(row: asyncpg.Record) -> TakenNotice:
    values: dict[str, Any] = dict(row)
    return TakenNotice(**{**values, "subject": Subject(values["subject"])})


async def known_of(connection: Connection, notices: Sequence[TakenNotice]) -> Known:
    """What these notices are about, with one statement a kind, and without a lock."""
    unnamed = {(each.tenant_id, each.intent_id) for each in notices if each.payment_id is None and each.intent_id}
    of_intent = {
        (row["tenant_id"], row["intent_id"]): row["id"] for row in await _fetched(connection, OF_INTENTS, sorted(unnamed))
    }
    named = {(each.tenant_id, each.payment_id) for each in notices if each.payment_id is not None}
    named |= {(tenant_id, payment_id) for (tenant_id, _), payment_id in of_intent.items()}
    payments = await PAYMENTS.load(connection, sorted(named), lock=False) if named else []
    refunds = {(each.tenant_id, each.object_id) for each in notices if each.subject is Subject.REFUND}
    rows = await _fetched(connection, REFUNDS_BY_NAME, sorted(refunds))
    return Known(
        payments={(payment.tenant_id, payment.id): payment for payment in payments},
        of_intent=of_intent,
        refunds={(row["tenant_id"], row["provider_id"]): REFUNDS.decode(row) for row in rows},
    )


async def _fetched(connection: Connection, sql: str, keys: Sequence[tuple[UUID, Any]]) -> Sequence[asyncpg.Record]:
    if not keys:
        return []
    rows: Sequence[asyncpg.Record] = await connection.fetch(sql, [tenant for tenant, _ in keys], [key for _, key in keys])
    return rows


async def settle_notices(connection: Connection, settled: Iterable[Settled], *, ends: bool = False) -> None:
    """Write down what became of each, unless somebody else has taken it up since."""
    rows = list(settled)
    await fetch(
        connection,
        SETTLE,
        [each.notice.tenant_id for each in rows],
        [each.notice.id for each in rows],
        [each.notice.tries for each in rows],
        [each.result for each in rows],
        [each.wait for each in rows],
        ends=ends,
    )


async def waiting_notices(connection: Connection) -> tuple[int, float]:
    """How many notices wait, and for how many seconds the oldest of them has."""
    row = await connection.fetchrow(WAITING)
    return (row["waiting_count"], row["oldest_seconds"]) if row else (0, 0.0)


async def forget_notices(connection: Connection, older_than: timedelta, how_many: int) -> int:
    """Delete settled notices that came longer ago than this, and a month at least; answers how many there were."""
    return int(await connection.fetchval(FORGET, older_than, how_many))
