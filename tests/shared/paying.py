"""Payments driven to where a test wants them, on a real Postgres, with a provider that answers as it is told."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from libs.common.clock import now
from libs.common.messaging.headers import unpack
from libs.common.messaging.shell import Shell
from services.payments.domain.money.ledger import Account
from services.payments.domain.provider.operation import Operation, OperationKind
from services.payments.domain.provider.outcome import (
    DisputeStatus,
    IntentStatus,
    Outcome,
    RefundStatus,
    SeenDispute,
    SeenRefund,
    Succeeded,
)
from services.payments.handlers.outcomes import RecordOutcome
from services.payments.handlers.refunds import RequestRefund
from services.payments.repository import OPERATIONS, PAYMENTS
from services.payments.repository.money import ledger as books
from services.payments.repository.money.ledger import ENTRIES
from tests.shared.callers import message
from tests.shared.events import order_confirmed_for, payment_requested
from tests.shared.places import Place

AMOUNT, FEE = 10_000, 320
"""What each payment takes, and what the provider keeps of it."""


def intent(operation: Operation, status: IntentStatus) -> Succeeded:
    taken = AMOUNT if status is IntentStatus.CAPTURED else 0
    return Succeeded(
        intent_id=operation.intent_id or f"pi_{operation.payment_id.hex}",
        status=status,
        amount_minor=AMOUNT,
        currency="gbp",
        amount_capturable_minor=AMOUNT if status is IntentStatus.AUTHORIZED else 0,
        amount_received_minor=taken,
        charge_id=f"ch_{operation.payment_id.hex}",
        fee_minor=FEE if taken else None,
        transaction_id=f"txn_{operation.payment_id.hex}" if taken else None,
    )


def obliging(operation: Operation) -> Outcome:
    """Everything works."""
    match operation.kind:
        case OperationKind.CREATE:
            return intent(operation, IntentStatus.NEEDS_CONFIRMATION)
        case OperationKind.CONFIRM:
            return intent(operation, IntentStatus.AUTHORIZED)
        case OperationKind.CAPTURE:
            return intent(operation, IntentStatus.CAPTURED)
        case OperationKind.CANCEL:
            return intent(operation, IntentStatus.CANCELED)
        case OperationKind.REFUND:
            return refund_of(operation, RefundStatus.SUCCEEDED)


def refund_of(operation: Operation, status: RefundStatus) -> SeenRefund:
    return SeenRefund(
        provider_id=f"re_{operation.id.hex}",
        intent_id=operation.request["intent_id"],
        charge_id=None,
        amount_minor=operation.request["amount_minor"],
        currency="gbp",
        status=status,
        failure_code="expired_or_canceled_card" if status is RefundStatus.FAILED else None,
        metadata=operation.request["metadata"],
        created_at=now(),
    )


def dispute_seen(status: DisputeStatus, withdrawn: int, reinstated: int, fee: int) -> SeenDispute:
    return SeenDispute(
        provider_id="dp_1",
        intent_id=None,
        charge_id=None,
        amount_minor=AMOUNT,
        currency="gbp",
        status=status,
        reason="fraudulent",
        respond_by=now() + timedelta(days=7),
        withdrawn_minor=withdrawn,
        reinstated_minor=reinstated,
        fee_minor=fee,
        created_at=now(),
    )


def always(outcome: Outcome) -> Callable[[Operation], Outcome]:
    """The same to everything."""
    return lambda _: outcome


async def opened(shell: Shell, tenant_id: UUID) -> list[Operation]:
    async with shell.database.transaction([tenant_id]) as connection:
        rows = await connection.fetch("SELECT * FROM operation WHERE due_at IS NOT NULL")
    return [OPERATIONS.decode(row) for row in rows]


async def answer(shell: Shell, tenant_id: UUID, outcome: Callable[[Operation], Outcome] = obliging) -> int:
    """Answer every open call, as the executor records it; answers how many there were."""
    calls = await opened(shell, tenant_id)
    recorded = await shell.execute_many([message(RecordOutcome.of(each, outcome(each)), tenant_id) for each in calls])
    assert recorded == [True] * len(calls)
    return len(calls)


async def captured(shell: Shell, tenant_id: UUID, *, confirm: bool = True, **changes: Any) -> UUID:
    """A payment whose money is ours."""
    requested = payment_requested(amount_minor=AMOUNT, **changes)
    await shell.execute(message(requested, tenant_id))
    while await answer(shell, tenant_id):
        pass
    if confirm:
        await shell.execute(message(order_confirmed_for(requested), tenant_id))
        await answer(shell, tenant_id)
    return requested.payment_id


def wanted(payment_id: UUID, amount_minor: int | None) -> RequestRefund:
    return RequestRefund(payment_id=payment_id, refund_id=uuid4(), amount_minor=amount_minor, reason="because")


async def numbers(shell: Shell, tenant_id: UUID, payment_id: UUID) -> tuple[int, int, int]:
    async with shell.database.transaction([tenant_id]) as connection:
        [payment] = await PAYMENTS.load(connection, [(tenant_id, payment_id)], lock=False)
    return payment.captured_minor, payment.refunding_minor, payment.refunded_minor


async def balances(shell: Shell, tenant_id: UUID) -> dict[str, int]:
    """Each account's balance; and the books are held to what must always be so."""
    async with shell.database.transaction([tenant_id]) as connection:
        found = await books.balances(connection, tenant_id)
        entries = await ENTRIES.page(connection, tenant_id, after=None, limit=100_000)
        sums = await connection.fetchrow(
            "SELECT coalesce(sum(captured_minor), 0)::bigint AS captured, coalesce(sum(refunded_minor), 0)::bigint AS refunded "
            "FROM payment"
        )
    assert sum(each.debited_minor for each in found) == sum(each.credited_minor for each in found)
    assert sum(each.debited_minor for each in found) == sum(entry.amount_minor for entry in entries)
    by_code = Counter({str(each.code): each.balance_minor for each in found})
    gone = sum(by_code[code] for code in (Account.PROVIDER_FEES, Account.REFUNDS, Account.CHARGEBACKS, Account.DISPUTE_FEES))
    assert by_code[Account.PROVIDER_BALANCE] == by_code[Account.SALES] - gone
    assert sums is not None
    assert (by_code[Account.SALES], by_code[Account.REFUNDS]) == (sums["captured"], sums["refunded"])
    return dict(by_code)


async def entry_kinds(shell: Shell, tenant_id: UUID) -> Counter[str]:
    async with shell.database.transaction([tenant_id]) as connection:
        return Counter(row["kind"] for row in await connection.fetch("SELECT kind FROM ledger_entry"))


async def published(place: Place, tenant_id: UUID, prefix: str) -> list[str]:
    admin = await place.as_admin()
    try:
        rows = await admin.fetch("SELECT headers FROM outbox_event WHERE tenant_id = $1 ORDER BY id", tenant_id)
    finally:
        await admin.close()
    types = [dict(unpack(row["headers"]))["ce_type"].decode() for row in rows]
    return [each for each in types if each.startswith(prefix)]
