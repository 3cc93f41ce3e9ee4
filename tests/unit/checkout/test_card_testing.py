"""Stolen cards are not tried out here: who has had too many refused waits, nobody else does, and nobody is asked meanwhile."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.contracts.checkout import CardTestingSuspected, PaymentRequested
from libs.common.decision import Viewer
from services.checkout.domain.card_testing import (
    SLOT_SECONDS,
    Bounds,
    Declines,
    Payer,
    TooManyDeclinesError,
    declined,
    demand_may_try,
    held,
)
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.handlers import ResumeCheckout, StartCheckout
from tests.shared.events import payment_authorized, tenant_updated
from tests.unit.checkout.shop import declined as refusal
from tests.unit.checkout.shop import frozen, shop
from tests.unit.memory import NOW, TENANT, Memory

USUAL = Bounds()
HOME, CAFE = "192.0.2.7", "198.51.100.1"


def payer(address: str = HOME, *, is_guest: bool = True, subject_id: UUID | None = None) -> Payer:
    return Payer(tenant_id=TENANT, subject_id=subject_id or uuid4(), address=address, is_guest=is_guest)


def begin(memory: Memory, who: Payer | None, *, now: datetime = NOW, method: str = "pm_card_visa", **more: Any) -> Checkout:
    """A checkout of one tea, up to where its money is asked for, or where it rests."""
    command = StartCheckout(
        checkout_id=uuid4(),
        cart_id=uuid4(),
        subject_id=who.subject_id if who else uuid4(),
        method=method,
        email=None,
        body_digest="body",
        ttl_seconds=900,
        payer=who,
        **more,
    )
    started: Checkout = memory.execute(command, now=now)
    memory.execute(frozen(started, [("tea", 1)]), now=now)
    return memory.get(Checkout, started.id)


def refuse(memory: Memory, who: Payer | None, *, now: datetime = NOW, code: str = "card_declined") -> None:
    memory.execute(refusal(begin(memory, who, now=now), code), now=now)


def pay(memory: Memory, who: Payer, *, now: datetime = NOW) -> None:
    checkout = begin(memory, who, now=now)
    memory.execute(payment_authorized(checkout), now=now)
    assert memory.get(Checkout, checkout.id).state is CheckoutState.CONFIRMED


def wait_of(memory: Memory, who: Payer, *, now: datetime = NOW) -> int:
    """How long they are told to wait; that nobody was asked for their money is seen to."""
    asked, checkouts = len(memory.events(PaymentRequested)), len(memory.all(Checkout))
    with pytest.raises(TooManyDeclinesError) as refused:
        begin(memory, who, now=now)
    assert (len(memory.events(PaymentRequested)), len(memory.all(Checkout))) == (asked, checkouts)
    assert (refused.value.status, refused.value.code) == (429, "too-many-declines")
    seconds: int = refused.value.members["retry_after"]
    return seconds


def settled(memory: Memory, card_testing: Mapping[str, Any]) -> Memory:
    memory.execute(tenant_updated(TENANT, version=2, settings={"card_testing": dict(card_testing)}), sequence=2)
    return memory


def test_who_tries_one_card_after_another_waits_before_the_sixth_and_may_come_again_when_told() -> None:
    memory, thief = shop(tea=100), payer(is_guest=False)
    for _ in range(USUAL.per_subject):
        refuse(memory, thief)
    seconds = wait_of(memory, thief)
    assert USUAL.window_seconds <= seconds <= USUAL.window_seconds + SLOT_SECONDS
    wait_of(memory, thief, now=NOW + timedelta(seconds=seconds - 1))
    pay(memory, thief, now=NOW + timedelta(seconds=seconds))
    pay(memory, payer(HOME, is_guest=False))


def asked(memory: Memory, who: Payer | None, *, now: datetime = NOW) -> str | None:
    """What their payment is asked for with."""
    begin(memory, who, now=now)
    return memory.events(PaymentRequested)[-1].challenge


def test_who_was_refused_often_proves_who_they_are_before_they_have_to_wait_and_nobody_else_does() -> None:
    memory, thief = shop(tea=100), payer(is_guest=False)
    first = USUAL.first_of("subject")
    assert 1 < first < USUAL.per_subject
    for number in range(first):
        assert asked(memory, thief) is None, f"after {number} refused cards"
        refuse(memory, thief)
    assert asked(memory, thief) == "any"
    assert asked(memory, payer(is_guest=False)) is None
    assert asked(memory, None) is None, "a tenant's machine buys for others"
    assert asked(memory, thief, now=NOW + timedelta(hours=1)) is None


def test_guests_prove_themselves_by_their_address_and_all_of_them_while_the_shop_has_too_many_refused() -> None:
    memory = settled(shop(tea=1_000), {"per_tenant": 10, "per_address": 10, "challenge_percent": 50})
    for _ in range(5):
        refuse(memory, payer(CAFE))
    assert (asked(memory, payer(CAFE)), asked(memory, payer(CAFE, is_guest=False)), asked(memory, payer(HOME))) == (
        "any",
        None,
        None,
    )
    for number in range(5):
        refuse(memory, payer(f"203.0.113.{number}"))
    assert (asked(memory, payer(HOME)), asked(memory, payer(HOME, is_guest=False))) == ("any", None)


def test_a_good_buyer_whose_first_card_is_refused_pays_with_the_next_however_often_that_happens() -> None:
    memory, buyer = shop(tea=100), payer()
    for _ in range(2 * USUAL.per_address):
        refuse(memory, buyer)
        pay(memory, buyer)
    assert memory.events(CardTestingSuspected) == []
    memory.assert_numbered()


def test_guests_of_one_address_wait_together_and_those_whom_the_shop_knows_or_who_are_elsewhere_do_not() -> None:
    memory = shop(tea=100)
    for _ in range(USUAL.per_address):
        refuse(memory, payer(CAFE))
    assert wait_of(memory, payer(CAFE)) > 0
    pay(memory, payer(CAFE, is_guest=False))
    pay(memory, payer(HOME))
    [told] = memory.events(CardTestingSuspected)
    assert (told.by, told.subject_id, told.declined_count) == ("address", None, USUAL.per_address)
    assert CAFE not in str(told)


def test_whoever_holds_stolen_cards_closes_no_shop() -> None:
    memory = settled(shop(tea=1_000), {"per_tenant": 20})
    for number in range(60):
        refuse(memory, payer(f"203.0.113.{number}"))
    pay(memory, payer(HOME, is_guest=False))
    pay(memory, payer(HOME))
    guest, lucky = payer(HOME), payer("192.0.2.8")
    refuse(memory, lucky)
    pay(memory, lucky)
    for _ in range(2):
        refuse(memory, guest)
    assert wait_of(memory, guest) > 0, "a guest has two cards while the shop has too many refused ones, not five"
    pay(memory, payer(HOME))
    assert [told.by for told in memory.events(CardTestingSuspected)] == ["tenant"]


def test_what_no_card_is_at_fault_for_and_what_a_shops_machine_buys_stops_nobody() -> None:
    memory, buyer = shop(tea=100), payer()
    for _ in range(USUAL.per_address + 1):
        refuse(memory, buyer, code="amount-not-payable")
        refuse(memory, None)
    pay(memory, buyer)
    assert memory.events(CardTestingSuspected) == []


def test_who_reserves_first_and_pays_later_waits_as_well_and_from_where_they_pay() -> None:
    memory, thief = settled(shop(tea=100), {"per_address": 3}), payer(CAFE)
    resting = begin(memory, payer(HOME, subject_id=thief.subject_id), method="")
    for _ in range(3):
        refuse(memory, payer(CAFE))
    caller = Viewer(subject_id=thief.subject_id, sees_all=False)
    asked = len(memory.events(PaymentRequested))
    with pytest.raises(TooManyDeclinesError):
        memory.execute(ResumeCheckout(checkout_id=resting.id, caller=caller, method="pm_card_visa", payer=thief), now=NOW)
    assert len(memory.events(PaymentRequested)) == asked
    at_home = payer(HOME, subject_id=thief.subject_id)
    memory.execute(ResumeCheckout(checkout_id=resting.id, caller=caller, method="pm_card_visa", payer=at_home), now=NOW)
    memory.execute(refusal(memory.get(Checkout, resting.id)), now=NOW)
    counted = {each.id: sum(each.counts.values()) for each in memory.all(Declines)}
    assert (counted[at_home.origin], counted[thief.origin]) == (1, 3)


STEPS = st.lists(st.tuples(st.sampled_from(["refused", "refused", "held"]), st.integers(0, 400)), max_size=40)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(1, 6), st.integers(60, 900))
def test_the_wait_is_as_long_as_it_must_be_and_no_longer_whatever_came_before(
    steps: list[tuple[str, int]], bound: int, window_seconds: int
) -> None:
    bounds, who, now = Bounds(window_seconds, per_subject=bound), payer(is_guest=False), NOW
    own = Declines(tenant_id=TENANT, id=who.subject, by="subject", last_at=now)
    refused: list[datetime] = []
    for what, seconds in steps:
        now += timedelta(seconds=seconds)
        before = len([at for at in refused if _is_counted(at, now, window_seconds)])
        if what == "refused":
            own, suspected = declined(own, bounds, who.subject_id, now)
            refused.append(now)
            assert (suspected is not None) == (before == bound - 1)
        elif fewer := held(own, now):
            own = fewer
            refused.pop()
        else:
            assert [at for at in refused if _is_counted(at, now, 3_600)] == []
        assert own.count(now, window_seconds) == len([at for at in refused if _is_counted(at, now, window_seconds)])
        try:
            demand_may_try(who, own, None, None, bounds, now)
        except TooManyDeclinesError as error:
            retry_after: int = error.members["retry_after"]
            demand_may_try(who, own, None, None, bounds, now + timedelta(seconds=retry_after))
            with pytest.raises(TooManyDeclinesError):
                demand_may_try(who, own, None, None, bounds, now + timedelta(seconds=retry_after - 1))
        else:
            assert own.count(now, window_seconds) < bound


def _is_counted(at: datetime, now: datetime, window_seconds: int) -> bool:
    """Whether the ten seconds that it fell in are not all older than the window."""
    end = at.timestamp() // SLOT_SECONDS * SLOT_SECONDS + SLOT_SECONDS
    return now.timestamp() - end < window_seconds
