"""Money that the provider exchanges: what its JSON says of that, and books that follow each movement in its own currency."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from services.payments.domain.money import dispute as disputes
from services.payments.domain.money import refund_recording
from services.payments.domain.money.ledger import Account, Entry, EntryKind, fee, of_capture
from services.payments.domain.money.refund import found_refund_id
from services.payments.domain.payment.payment import PaymentState
from services.payments.domain.payment.recording import taken
from services.payments.domain.provider.outcome import Exchange, SeenDispute, SeenRefund, Succeeded
from services.payments.domain.reconciliation.comparison import BreakKind, Repair, compare
from services.payments.domain.reconciliation.sides import of_entries, of_transaction
from services.payments.gateway import reading
from tests.unit.payments.money_back import CAPTURED, INTENT, PAYMENT, Books

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
AT = int(NOW.timestamp())


def movement(identity: str, amount: int, fee: int = 0, rate: float | None = 0.78, currency: str = "gbp") -> reading.Transaction:
    """A balance transaction as Stripe has it: a float for the rate, as JSON knows no other number."""
    return {
        "id": identity,
        "type": "adjustment",
        "amount": amount,
        "fee": fee,
        "net": amount - fee,
        "currency": currency,
        "created": AT,
        "exchange_rate": rate,
    }


def intent(transaction: Any, *, taken_minor: int = CAPTURED, currency: str = "usd") -> Succeeded:
    seen = reading.read_intent(
        {
            "id": INTENT,
            "status": "succeeded",
            "amount": CAPTURED,
            "amount_capturable": 0,
            "amount_received": taken_minor,
            "currency": currency,
            "created": AT,
            "latest_charge": {"id": "ch_1", "balance_transaction": transaction},
        }
    )
    assert isinstance(seen, Succeeded)
    return seen


def refund(status: str, amount: int, gone: Any, returned: Any = None) -> SeenRefund:
    seen = reading.read_refund(
        {
            "id": "re_1",
            "status": status,
            "amount": amount,
            "currency": "usd",
            "created": AT,
            "payment_intent": INTENT,
            "balance_transaction": gone,
            "failure_balance_transaction": returned,
        }
    )
    assert isinstance(seen, SeenRefund)
    return seen


def case(status: str, *moved: reading.Transaction) -> SeenDispute:
    seen = reading.read_dispute(
        {
            "id": "dp_1",
            "status": status,
            "amount": CAPTURED,
            "currency": "usd",
            "reason": "fraudulent",
            "created": AT,
            "payment_intent": INTENT,
            "balance_transactions": moved,
        }
    )
    assert isinstance(seen, SeenDispute)
    return seen


def test_a_rate_is_the_number_that_stripe_wrote_in_text_and_only_where_something_was_exchanged() -> None:
    for rate, text in ((0.78, "0.78"), (1.0, "1.0"), (7.8e-05, "0.000078"), (151.234567, "151.234567"), (None, None)):
        assert intent(movement("txn_1", 975, rate=rate)).exchange == Exchange("txn_1", 975, "gbp", text)
    assert intent(movement("txn_1", CAPTURED, rate=None, currency="usd")).exchange is None
    assert intent("txn_1").exchange is None, "it did not say"
    assert refund("succeeded", 5, movement("txn_2", -4)).exchange == Exchange("txn_2", 4, "gbp", "0.78")
    taken_away, given_back = movement("txn_3", -975, 1_500), movement("txn_4", 960)
    won = case("won", taken_away, given_back)
    assert (won.withdrawn_minor, won.reinstated_minor) == (CAPTURED, CAPTURED), "in the dispute's own currency"
    assert (won.fee_minor, won.fee_currency) == (1_500, "gbp")
    assert [each.reference for each in (*won.withdrawals, *won.reinstatements)] == ["txn_3", "txn_4"]


AMOUNT = st.integers(1, 50_000)
RATE = st.decimals("0.0001", "999", places=4).map(float)


@settings(max_examples=300, deadline=None)
@given(
    amounts=st.tuples(AMOUNT, AMOUNT, AMOUNT, AMOUNT, AMOUNT),
    fees=st.tuples(st.integers(0, 900), st.integers(0, 2_000)),
    rate=RATE,
    back=st.integers(1, CAPTURED),
    twice=st.booleans(),
)
def test_each_currency_has_what_the_provider_has_in_it_however_it_was_exchanged(
    amounts: Sequence[int], fees: tuple[int, int], rate: float, back: int, twice: bool
) -> None:
    captured, gone, returned, lost, won = amounts
    books: dict[UUID, Entry] = {}

    def post(entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert books.setdefault(entry.id, entry) == entry, "one fact, one entry"

    before = replace(Books().payment, currency="USD", state=PaymentState.AUTHORIZED, captured_minor=0, refunded_minor=0)
    told = intent(movement("txn_1", captured, fees[0], rate))
    decision = taken(replace(before, authorized_minor=CAPTURED), told, NOW)
    payment = decision.payment
    post(of_capture(payment, decision.taken))
    post(of_capture(payment, decision.taken))

    key = found_refund_id(PAYMENT, "re_1")
    out, late = movement("txn_2", -gone, rate=rate), movement("txn_3", returned, rate=rate)
    first = refund_recording.adopt(payment, key, refund("succeeded", back, out), NOW)
    failed = refund_recording.follow(first.payment, first.refund, refund("failed", back, out, late))
    assert failed is not None
    post([*first.entries, *failed.entries])

    taken_away, given_back = movement("txn_4", -lost, fees[1], rate), movement("txn_5", won, rate=rate)
    opened = disputes.observe(payment, None, case("needs_response", taken_away))
    assert opened is not None
    post(opened.entries)
    if twice and (again := disputes.observe(payment, opened.dispute, case("under_review", taken_away))):
        post(again.entries)
    closed = disputes.observe(payment, opened.dispute, case("won", taken_away, given_back))
    assert closed is not None
    post(closed.entries)

    at_provider, sums = Counter[str](), Counter[str]()
    for entry in books.values():
        sign = (entry.debit is Account.PROVIDER_BALANCE) - (entry.credit is Account.PROVIDER_BALANCE)
        at_provider[entry.currency] += sign * entry.amount_minor
        sums[f"{entry.currency} {entry.debit}"] += entry.amount_minor
        sums[f"{entry.currency} {entry.credit}"] -= entry.amount_minor
        assert entry.exchange_rate is None or Decimal(entry.exchange_rate) == Decimal(str(rate))
    assert at_provider["GBP"] == captured - fees[0] - gone + returned - lost - fees[1] + won
    assert at_provider["USD"] == 0, "all of it was exchanged"
    assert sums["USD sales"] == -CAPTURED
    assert not {name for name in sums if name in {"USD provider_fees", "USD dispute_fees", "GBP sales", "GBP refunds"}}


# --- Beside the provider's balance -----------------------------------------------------------------------------------


def beside(entries: Sequence[Entry], minor: int = 975, fee_minor: int = 35) -> list[tuple[BreakKind, Repair | None]]:
    """What a comparison says of a capture's movement and these entries."""
    answer = {**movement("txn_1", minor, fee_minor), "type": "charge", "source": "ch_1"}
    theirs = of_transaction(reading.read_transaction(answer), PAYMENT)  # type: ignore[arg-type] # as told
    ours = of_entries(theirs, entries)
    assert ours is not None
    found = compare([ours], [theirs], now=NOW + timedelta(days=1), grace=timedelta(0)).found
    return [(each.kind, each.repair) for each in found]


def test_of_a_movement_in_another_currency_a_missing_exchange_may_be_posted_and_a_wrong_one_is_for_a_person() -> None:
    before = replace(Books().payment, currency="USD", state=PaymentState.AUTHORIZED, captured_minor=0, authorized_minor=CAPTURED)
    whole = taken(before, intent(movement("txn_1", 975, 35)), NOW)
    entries = of_capture(whole.payment, whole.taken)
    assert beside(entries) == []
    assert beside(entries, 976) == [(BreakKind.AMOUNT, None)]
    assert beside(entries, fee_minor=36) == [(BreakKind.FEE, None)]
    captured_alone = [entry for entry in entries if entry.kind is EntryKind.CAPTURE]
    assert beside(captured_alone) == [(BreakKind.AMOUNT, Repair.POST)]
    without_fee = [entry for entry in entries if entry.kind is not EntryKind.FEE]
    assert beside(without_fee) == [(BreakKind.FEE, Repair.POST)]
    of_before = [*captured_alone, *fee(whole.payment, 35, "txn_1")]
    assert beside(of_before) == [(BreakKind.AMOUNT, Repair.POST)], "a fee of 35 pence was booked as 35 cents"
    two = [replace(each, reference="ch_1") for each in captured_alone]
    two.append(replace(two[0], id=UUID(int=2), amount_minor=300))
    assert beside(two) == [(BreakKind.AMOUNT, None)], "which of them it is nobody can say"
