"""One captured payment, its refunds and disputes, and the books that always balance."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from libs.common.contracts import Event
from services.payments.domain.money import ledger
from services.payments.domain.money import refund as machine
from services.payments.domain.money.dispute import Dispute
from services.payments.domain.money.ledger import TRANSFERS, Account, Entry, EntryKind
from services.payments.domain.money.refund import ASKING, RESERVING, Refund, RefundDecision, RefundState
from services.payments.domain.payment.payment import Payment, PaymentState
from services.payments.domain.provider.operation import OPEN, Operation
from services.payments.domain.provider.outcome import RefundStatus, SeenRefund

START = datetime(2026, 1, 1, tzinfo=UTC)
TENANT, PAYMENT, CHECKOUT, ORDER = (UUID(int=number) for number in range(1, 5))
CAPTURED = 1_000
INTENT = "pi_1"


def captured() -> Payment:
    return Payment(
        tenant_id=TENANT,
        id=PAYMENT,
        checkout_id=CHECKOUT,
        order_id=ORDER,
        amount_minor=CAPTURED,
        currency="GBP",
        state=PaymentState.CAPTURED,
        intent_id=INTENT,
        authorized_minor=CAPTURED,
        captured_minor=CAPTURED,
        created_at=START,
    )


@dataclass
class Books:
    """The rows as the shell would store them, holding every decision to what must always be true."""

    payment: Payment = field(default_factory=captured)
    refunds: dict[UUID, Refund] = field(default_factory=dict)
    operations: dict[UUID, Operation] = field(default_factory=dict)
    disputes: dict[UUID, Dispute] = field(default_factory=dict)
    entries: dict[UUID, Entry] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    now: datetime = START

    def __post_init__(self) -> None:
        self.post(ledger.captured(self.payment, CAPTURED, "ch_1"))

    def post(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert entry.id not in self.entries, "one fact is one entry"
            self.entries[entry.id] = entry

    def apply(self, decision: RefundDecision) -> None:
        before = self.refunds.get(decision.refund.id)
        if before is not None and before.state is not decision.refund.state:
            assert decision.refund.state in machine.TRANSITIONS[before.state]
        self.payment = decision.payment
        self.refunds[decision.refund.id] = decision.refund
        if decision.planned is not None:
            assert decision.planned.id not in self.operations, "a key is planned once"
            self.operations[decision.planned.id] = decision.planned
        self.post(decision.entries)
        self.events.extend(decision.events)
        self.check()

    def call_of(self, refund: Refund) -> Operation | None:
        return self.operations.get(machine.refund_operation_id(refund.id, refund.attempt))

    def check(self) -> None:
        payment, refunds = self.payment, self.refunds.values()
        assert payment.refunding_minor == sum(each.amount_minor for each in refunds if each.state in RESERVING)
        assert payment.refunded_minor == sum(each.amount_minor for each in refunds if each.state is RefundState.SUCCEEDED)
        assert payment.refunding_minor + payment.refunded_minor <= payment.captured_minor
        for refund in refunds:
            call = self.call_of(refund)
            assert (call is not None and call.state in OPEN) == (refund.state in ASKING)
            assert (refund.due_at is not None) == (refund.state in RESERVING)
            assert (refund.failure_code is not None) == (refund.state in {RefundState.FAILED, RefundState.CANCELED})
        self.assert_conserved()

    def assert_conserved(self) -> None:
        """What the provider holds for us is what came in, less what went out; and each account follows from its entries."""
        sums = Counter[EntryKind]()
        for entry in self.entries.values():
            assert TRANSFERS[entry.kind] == (entry.debit, entry.credit)
            assert entry.amount_minor > 0
            sums[entry.kind] += entry.amount_minor
        assert sums[EntryKind.REFUND] - sums[EntryKind.REFUND_RETURN] == self.payment.refunded_minor
        lost = sum(each.withdrawn_minor - each.reinstated_minor for each in self.disputes.values())
        fees = sum(each.fee_minor for each in self.disputes.values())
        assert sums[EntryKind.CHARGEBACK] - sums[EntryKind.CHARGEBACK_RETURN] == lost
        assert sums[EntryKind.DISPUTE_FEE] - sums[EntryKind.DISPUTE_FEE_RETURN] == fees
        assert self.balance(Account.PROVIDER_BALANCE) == CAPTURED - self.payment.refunded_minor - lost - fees
        assert sum(self.balance(account) for account in Account) == 0

    def balance(self, account: Account) -> int:
        debits = sum(entry.amount_minor for entry in self.entries.values() if entry.debit is account)
        return debits - sum(entry.amount_minor for entry in self.entries.values() if entry.credit is account)


def seen(refund: Refund, status: RefundStatus, **changes: object) -> SeenRefund:
    told = SeenRefund(
        provider_id=f"re_{refund.id.hex}",
        intent_id=INTENT,
        charge_id="ch_1",
        amount_minor=refund.amount_minor,
        currency="gbp",
        status=status,
        failure_code="lost_or_stolen_card" if status is RefundStatus.FAILED else None,
        metadata={"refund_id": str(refund.id)},
        created_at=START,
    )
    return replace(told, **changes)  # type: ignore[arg-type]
