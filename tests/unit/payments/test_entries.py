"""The ledger's entries: each kind of movement between its two accounts, each fact once, and nothing of nothing."""

from dataclasses import replace
from uuid import UUID

import pytest

from services.payments.domain.money import ledger
from services.payments.domain.money.ledger import CREDITED, TRANSFERS, Account, EntryKind
from services.payments.domain.payment.payment import Taken
from tests.unit.payments.books import Books

K, A = EntryKind, Account
MOVED = {
    K.CAPTURE: (A.PROVIDER_BALANCE, A.SALES),
    K.FEE: (A.PROVIDER_FEES, A.PROVIDER_BALANCE),
    K.REFUND: (A.REFUNDS, A.PROVIDER_BALANCE),
    K.CHARGEBACK: (A.CHARGEBACKS, A.PROVIDER_BALANCE),
    K.DISPUTE_FEE: (A.DISPUTE_FEES, A.PROVIDER_BALANCE),
}
BACK = {
    K.FEE: K.FEE_RETURN,
    K.REFUND: K.REFUND_RETURN,
    K.CHARGEBACK: K.CHARGEBACK_RETURN,
    K.DISPUTE_FEE: K.DISPUTE_FEE_RETURN,
}


@pytest.fixture
def books() -> Books:
    books = Books()
    books.request()
    return books


def test_what_comes_back_is_the_same_transfer_the_other_way_round_and_the_balance_at_the_provider_is_in_each() -> None:
    assert {kind: TRANSFERS[kind] for kind in MOVED} == MOVED
    assert {there: TRANSFERS[back][::-1] for there, back in BACK.items()} == {there: MOVED[there] for there in BACK}
    assert all(A.PROVIDER_BALANCE in accounts and len({*accounts}) == 2 for accounts in TRANSFERS.values())
    assert {A.SALES} == CREDITED


def test_an_entry_tells_all_of_a_movement_and_none_is_made_of_nothing(books: Books) -> None:
    payment = books.known
    [entry] = ledger.transfer(payment, K.REFUND, UUID(int=5), 300, "re_1")
    assert (entry.id, entry.kind, entry.amount_minor, entry.reference) == (UUID(int=5), K.REFUND, 300, "re_1")
    assert (entry.debit, entry.credit) == MOVED[K.REFUND]
    assert (entry.tenant_id, entry.payment_id, entry.currency) == (payment.tenant_id, payment.id, payment.currency)
    assert ledger.transfer(payment, K.REFUND, UUID(int=5), 0, "re_1") == ()


def test_each_capture_and_each_fee_is_an_entry_of_its_own_however_often_it_is_heard_of(books: Books) -> None:
    part, whole = replace(books.known, captured_minor=400), replace(books.known, captured_minor=1_000)
    first, second = ledger.of_capture(part, Taken(400, 12, "txn_1")), ledger.of_capture(whole, Taken(600, -3, "txn_2"))
    assert [(each.kind, each.amount_minor) for each in (*first, *second)] == [
        (K.CAPTURE, 400),
        (K.FEE, 12),
        (K.CAPTURE, 600),
        (K.FEE_RETURN, 3),
    ]
    assert len({each.id for each in (*first, *second)}) == 4
    assert ledger.of_capture(part, Taken(400, 12, "txn_1")) == first
    assert ledger.of_capture(part, None) == ()
    assert [each.kind for each in ledger.of_capture(part, Taken(400, None, "txn_1"))] == [K.CAPTURE]
    assert ledger.fee(part, 0, "txn_1") == ()
