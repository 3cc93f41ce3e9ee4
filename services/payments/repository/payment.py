"""Payments and the attempts beneath them: what is paid with them, what nothing is heard of, what an operator watches."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from libs.common.database import Connection, Rows
from libs.common.tenancy import Tenant
from services.payments import tables
from services.payments.domain.payment.attempt import Attempt
from services.payments.domain.payment.payment import OrderPayment, Payment
from services.payments.domain.provider.ladder import WAITS

TENANTS = Rows(tables.TENANT, Tenant)
PAYMENTS = Rows(tables.PAYMENT, Payment)
ATTEMPTS = Rows(tables.ATTEMPT, Attempt)
ORDER_PAYMENTS = Rows(tables.ORDER_PAYMENT, OrderPayment)

DUE = "SELECT tenant_id, id FROM payments_due($1)"

WATCHED = "SELECT unknown_count, oldest_unknown_seconds, queued_count, challenged_count FROM payments_watched($1)"


async def due_payments(connection: Connection, how_many: int) -> Sequence[tuple[UUID, UUID]]:
    """Payments, whosever they are, that nothing was heard of for too long: (tenant, id), the longest due first."""
    return [(row["tenant_id"], row["id"]) for row in await connection.fetch(DUE, how_many)]


@dataclass(frozen=True, slots=True)
class Watched:
    """What an operator keeps an eye on, over all tenants."""

    unknown_count: int
    oldest_unknown_seconds: float
    queued_count: int
    """Of the unknown ones, those whose ladder has ended: a person must look into them."""
    challenged_count: int
    """Payments that wait for their payer."""


async def count_watched(connection: Connection) -> Watched:
    """How many outcomes are unknown and since when, and how many payments wait for a person."""
    row = await connection.fetchrow(WATCHED, len(WAITS))
    return Watched(**row) if row else Watched(0, 0.0, 0, 0)
