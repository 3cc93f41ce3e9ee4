"""The saga's small questions, answered for every state: who is told, whose turn it is, and how it ends without money."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from libs.common.contracts.checkout import CheckoutCanceled, CheckoutExpired, CheckoutFailed, PaymentVoidRequested
from libs.common.errors import ConflictError
from services.checkout.domain import saga
from services.checkout.domain.claim import claim_id
from services.checkout.domain.saga import FINAL, Checkout, CheckoutState, watched
from services.checkout.domain.stock import Allocation
from tests.unit.checkout.shop import S, paying, shop, start

GOODS = (Allocation(sku="tea", location="main", quantity=2),)
ENDS = {S.CONFIRMED, S.FAILED, S.CANCELED, S.EXPIRED}


@pytest.fixture
def checkout() -> Checkout:
    return replace(paying(shop(tea=5)), allocations=GOODS)


def test_the_ends_are_those_from_which_nothing_leads_on() -> None:
    assert ENDS == FINAL
    assert {S.STARTED, S.RESERVED} == saga.BEFORE_PAYMENT


def test_who_waits_for_an_end_is_called_at_it_or_when_it_is_the_payers_turn_and_who_watches_at_every_step(
    checkout: Checkout,
) -> None:
    whole, step = {str(checkout.id), watched(checkout.id)}, {watched(checkout.id)}
    assert str(checkout.id) != watched(checkout.id)
    for state in S:
        expected: set[str] = set() if state is S.STARTED else whole if state in ENDS | {S.RESERVED} else step
        assert set(replace(checkout, state=state).news) == expected, state
    challenged = replace(checkout, action_required=True)
    assert set(challenged.news) == whole
    turns = {state for state in S if replace(challenged, state=state).is_waiting_for_payer}
    assert turns == {S.RESERVED, S.PAYING}


def test_money_is_asked_for_once_it_is_quoted_said_how_and_owed(checkout: Checkout) -> None:
    assert checkout.asks_for_money
    lacking: list[dict[str, Any]] = [{"quote": None}, {"method": ""}, {"total_minor": 0}, {"state": S.RESERVED}]
    for changes in lacking:
        assert not replace(checkout, **changes).asks_for_money, changes
    assert replace(checkout, method="", confirmation="client").asks_for_money
    assert not start(shop(tea=1)).asks_for_money


@pytest.mark.parametrize(
    ("state", "reason", "refused", "end", "told"),
    [
        (S.PAYING, None, "payment-declined", S.FAILED, CheckoutFailed),
        (S.PAYING, None, None, S.FAILED, CheckoutFailed),
        (S.CANCELING, "canceled", None, S.CANCELED, CheckoutCanceled),
        (S.CANCELING, "canceled", "payment-declined", S.CANCELED, CheckoutCanceled),
        (S.CANCELING, "amount-mismatch", None, S.FAILED, CheckoutFailed),
        (S.EXPIRING, "timed-out", None, S.EXPIRED, CheckoutExpired),
        (S.EXPIRING, "timed-out", "payment-declined", S.FAILED, CheckoutFailed),
    ],
)
def test_without_money_it_ends_as_was_decided_or_for_what_payments_says(
    checkout: Checkout, state: CheckoutState, reason: Any, refused: Any, end: CheckoutState, told: type
) -> None:
    why = {S.CANCELED: "canceled", S.EXPIRED: "timed-out"}.get(end, refused or reason or "payment-failed")
    ended, event = saga.without_money(replace(checkout, state=state, reason=reason, action_required=True), refused)
    assert (ended.state, ended.reason, ended.allocations, ended.action_required) == (end, why, (), False)
    assert (type(event), event.checkout_id, event.cart_id, event.reason) == (told, checkout.id, checkout.cart_id, why)  # type: ignore[attr-defined] # each of these has them


def test_who_cancels_before_money_was_asked_for_is_done_and_after_it_waits_for_payments(checkout: Checkout) -> None:
    for early in saga.BEFORE_PAYMENT:
        for ending, end in ((saga.cancel, S.CANCELED), (saga.expire, S.EXPIRED)):
            ended, event = ending(replace(checkout, state=early))
            assert (ended.state, ended.allocations) == (end, ())
            assert not isinstance(event, PaymentVoidRequested)
    for ending, state, reason in ((saga.cancel, S.CANCELING, "canceled"), (saga.expire, S.EXPIRING, "timed-out")):
        waiting, event = ending(checkout)
        assert (waiting.state, waiting.reason, waiting.allocations) == (state, reason, GOODS)
        assert event == PaymentVoidRequested(checkout_id=checkout.id, payment_id=checkout.payment_id, reason=reason)  # type: ignore[arg-type] # one of the two above
    for final in FINAL:
        with pytest.raises(ConflictError) as refused:
            saga.cancel(replace(checkout, state=final, reason="out-of-stock"))
        assert refused.value.members == {"checkout_id": str(checkout.id), "state": str(final), "reason": "out-of-stock"}
        with pytest.raises(ConflictError, match="cannot become"):
            saga.expire(replace(checkout, state=final))


def test_others_are_told_that_there_was_none_when_a_buyer_had_too_many() -> None:
    assert (saga.told("reservation-limit"), saga.told("canceled")) == ("out-of-stock", "canceled")


def test_a_claim_is_of_one_subject_on_one_cart() -> None:
    a, b = UUID(int=1), UUID(int=2)
    assert len({claim_id(a, a), claim_id(a, b), claim_id(b, a), claim_id(b, b)}) == 4
    assert claim_id(a, b) == claim_id(a, b)
