"""The dispute machine against a provider that tells late, twice and in any order; the books always balance."""

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.payments import DisputeClosed, DisputeOpened
from services.payments.domain.money import dispute as disputes
from services.payments.domain.provider.outcome import DisputeStatus, SeenDispute
from tests.unit.payments.money_back import CAPTURED, INTENT, PAYMENT, START, Books


def case(status: DisputeStatus, withdrawn: int = 0, reinstated: int = 0, fee: int = 0) -> SeenDispute:
    return SeenDispute(
        provider_id="dp_1",
        intent_id=INTENT,
        charge_id="ch_1",
        amount_minor=CAPTURED,
        currency="gbp",
        status=status,
        reason="fraudulent",
        respond_by=None,
        withdrawn_minor=withdrawn,
        reinstated_minor=reinstated,
        fee_minor=fee,
        created_at=START,
    )


D = DisputeStatus
STORIES = {
    "won, and the fee with it": [
        case(D.WARNING_NEEDS_RESPONSE),
        case(D.NEEDS_RESPONSE, CAPTURED, fee=1_500),
        case(D.UNDER_REVIEW, CAPTURED, fee=1_500),
        case(D.WON, CAPTURED, CAPTURED),
    ],
    "lost": [case(D.NEEDS_RESPONSE), case(D.NEEDS_RESPONSE, CAPTURED, fee=1_500), case(D.LOST, CAPTURED, fee=1_500)],
    "never one": [case(D.WARNING_NEEDS_RESPONSE), case(D.WARNING_UNDER_REVIEW), case(D.WARNING_CLOSED)],
    "charged for later": [
        case(D.NEEDS_RESPONSE, CAPTURED),
        case(D.UNDER_REVIEW, CAPTURED, fee=1_500),
        case(D.LOST, CAPTURED, fee=1_500),
    ],
    "money after the verdict": [
        case(D.NEEDS_RESPONSE, 400, fee=1_500),
        case(D.WON, 400, fee=1_500),
        case(D.WON, 400, 400, fee=0),
    ],
}


def follow(books: Books, told: SeenDispute) -> None:
    known = books.disputes.get(disputes.dispute_id(PAYMENT, told.provider_id))
    decision = disputes.observe(books.payment, known, told)
    if decision is None:
        return
    if known is not None and decision.dispute.state is not known.state:
        assert decision.dispute.state in disputes.TRANSITIONS[known.state]
    books.disputes[decision.dispute.id] = decision.dispute
    books.post(decision.entries)
    books.events.extend(decision.events)
    books.assert_conserved()


@pytest.mark.parametrize("story", STORIES)
def test_a_dispute_told_in_any_order_with_repetitions_ends_where_the_provider_ended(story: str) -> None:
    told = STORIES[story]
    last = told[-1]
    ends = set()
    for order in permutations([*told, told[0], last]):
        books = Books()
        for news in order:
            follow(books, news)
        [settled] = books.disputes.values()
        opened, closed = books.events
        assert isinstance(opened, DisputeOpened)
        assert isinstance(closed, DisputeClosed)
        ends.add((settled.state, settled.withdrawn_minor, settled.reinstated_minor, settled.fee_minor))
    assert ends == {(last.status, last.withdrawn_minor, last.reinstated_minor, last.fee_minor)}


SEEN = st.builds(case, st.sampled_from(D), st.integers(0, CAPTURED), st.integers(0, CAPTURED), st.integers(0, 2_000))


@settings(max_examples=500, deadline=None)
@given(st.lists(SEEN, min_size=1, max_size=10))
def test_even_of_a_provider_that_contradicts_itself_the_books_balance_and_a_case_closes_once(told: Sequence[SeenDispute]) -> None:
    books = Books()
    for news in told:
        follow(books, news)
    kinds = Counter(type(event) for event in books.events)
    assert kinds[DisputeOpened] == 1
    assert kinds[DisputeClosed] <= 1
