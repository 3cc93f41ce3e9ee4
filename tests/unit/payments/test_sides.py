"""Both sides of a refund say the same where it stands the same, and money counts where it has moved."""

from dataclasses import replace
from uuid import UUID

import pytest

from services.payments.domain.money import refund_asking
from services.payments.domain.money.refund import Refund, RefundState, found_refund_id
from services.payments.domain.provider.outcome import RefundStatus
from services.payments.domain.reconciliation.comparison import Standing, Subject
from services.payments.domain.reconciliation.sides import of_refund, of_seen_refund
from tests.unit.payments.money_back import PAYMENT, START, captured, seen

OURS: Refund = replace(refund_asking.begun(captured(), UUID(int=77), 300, "broken", START), provider_id=f"re_{UUID(int=77).hex}")
R, T = RefundState, RefundStatus
STAND = {
    R.REQUESTED: "open",
    R.PENDING: "open",
    R.UNKNOWN: "open",
    R.SUCCEEDED: "moved",
    R.FAILED: "nothing",
    R.CANCELED: "nothing",
}
THEY_STAND = {T.PENDING: "open", T.REQUIRES_ACTION: "open", T.SUCCEEDED: "moved", T.FAILED: "nothing", T.CANCELED: "nothing"}
AMOUNTS = {"open": (0, 300), "moved": (300, 0), "nothing": (0, 0)}


@pytest.mark.parametrize("state", RefundState)
def test_a_refund_of_ours_counts_once_its_money_moved_and_is_set_aside_while_it_is_open(state: RefundState) -> None:
    side = of_refund(replace(OURS, state=state))
    standing = STAND[state]
    assert (side.standing, side.state, side.subject) == (Standing(standing), str(state), Subject.REFUND)
    assert (side.amount_minor, side.held_minor) == AMOUNTS[standing]
    assert (side.our_id, side.provider_id, side.payment_id, side.currency) == (OURS.id, OURS.provider_id, PAYMENT, "GBP")
    assert (side.made_at, side.since) == (START, START)


@pytest.mark.parametrize("status", RefundStatus)
def test_the_providers_refund_is_the_same_side_of_the_one_that_we_asked_for(status: RefundStatus) -> None:
    side = of_seen_refund(seen(OURS, status), PAYMENT)
    standing = THEY_STAND[status]
    assert (side.standing, (side.amount_minor, side.held_minor)) == (Standing(standing), AMOUNTS[standing])
    assert (side.our_id, side.provider_id, side.payment_id, side.currency) == (OURS.id, OURS.provider_id, PAYMENT, "GBP")


def test_one_that_somebody_made_elsewhere_has_the_id_that_we_would_give_it_and_none_without_a_payment() -> None:
    elsewhere = seen(OURS, RefundStatus.SUCCEEDED, metadata={})
    assert of_seen_refund(elsewhere, PAYMENT).our_id == found_refund_id(PAYMENT, elsewhere.provider_id)
    assert (of_seen_refund(elsewhere, None).our_id, of_seen_refund(elsewhere, None).payment_id) == (None, None)
