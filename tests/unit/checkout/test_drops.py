"""A queue lets in who came first, nobody twice, and no more than there are units and a few."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import ConflictError, RejectedError
from services.checkout.domain import drop
from services.checkout.domain.drop import OVERCOMMIT_PERCENT, Drop, Place, Standing, Terms
from services.checkout.domain.saga import Checkout, CheckoutState
from services.checkout.domain.stock import Stock, StockPolicy
from services.checkout.handlers import StartCheckout
from services.checkout.handlers.drops import DeleteDrop, JoinQueue, LetIn, PutDrop, Stands
from tests.unit.checkout.shop import frozen, shop
from tests.unit.memory import NOW, TENANT, Memory

SECOND = timedelta(seconds=1)
FAST = Terms(per_minute=60_000)


def opened(terms: Terms = FAST) -> Drop:
    return drop.put(None, TENANT, "tea", terms, NOW)


def queue(found: Drop, count: int) -> tuple[Drop, list[Place]]:
    places = []
    for _ in range(count):
        joined = drop.join(found, None, uuid4(), NOW)
        assert joined is not None
        found, place = joined
        places.append(place)
    return found, places


def tea(on_hand: int, *, reserved: int = 0, policy: StockPolicy = StockPolicy.TRACKED) -> Stock:
    return Stock(tenant_id=TENANT, sku="tea", on_hand=on_hand, reserved=reserved, policy=policy)


def states(found: Drop, places: list[Place], now: datetime) -> list[Standing | None]:
    return [drop.standing(found, place, now) for place in places]


def unused(found: Drop, places: list[Place], now: datetime) -> int:
    """What the repository counts."""
    live = range(found.lapsed_number(now) + 1, found.served_number + 1)
    return sum(1 for place in places if place.number in live and place.checkout_id is None)


def test_who_came_first_is_let_in_first_at_the_rate_and_no_sooner_than_it_starts() -> None:
    found, places = queue(opened(Terms(per_minute=60, starts_at=NOW + 10 * SECOND)), 5)
    assert drop.admit(found, tea(100), 0, NOW + 9 * SECOND) is found
    assert drop.wait_seconds(found, places[0], NOW) == 11
    found = drop.admit(found, tea(100), 0, NOW + 12 * SECOND)
    assert states(found, places, NOW + 12 * SECOND) == [*2 * [Standing.ADMITTED], *3 * [Standing.WAITING]]
    assert [drop.ahead(found, place) for place in places] == [0, 0, 0, 1, 2]
    assert drop.admit(found, tea(100), 2, NOW + 12 * SECOND) is found, "who looks at the same moment lets in nobody"


def test_fewer_are_let_in_the_more_crowded_it_is_and_some_always_are() -> None:
    found, _ = queue(opened(Terms(per_minute=600)), 100)
    counts = [drop.admit(found, tea(100), 0, NOW + SECOND, crowded).served_number for crowded in (0.0, 0.25, 0.5, 1.0)]
    assert counts == [10, 5, 2, 1]


def test_no_more_are_let_in_than_there_are_units_and_a_few_and_the_rest_when_those_come_no_more() -> None:
    found, places = queue(opened(replace(FAST, patience_seconds=60)), 200)
    found = drop.admit(found, tea(100), 0, NOW + SECOND)
    assert found.served_number == 100 + OVERCOMMIT_PERCENT
    assert drop.admit(found, tea(100), 105, NOW + 2 * SECOND) is found
    late = NOW + 70 * SECOND
    assert unused(found, places, late) == 0
    found = drop.admit(found, tea(100), unused(found, places, late), late)
    assert states(found, places, late)[104:106] == [Standing.LAPSED, Standing.ADMITTED]


def test_of_the_last_units_nobody_is_let_in_for_one_that_is_not_there() -> None:
    found, _ = queue(opened(), 50)
    assert drop.admit(found, tea(7), 0, NOW + SECOND).served_number == 7


def test_who_waits_when_none_are_left_is_told_so_and_waits_on_when_some_come_back() -> None:
    found, places = queue(opened(), 2)
    assert drop.admit(found, tea(0, reserved=1), 0, NOW + SECOND) is found, "what is held may come back"
    found = drop.admit(found, tea(0), 0, NOW + SECOND)
    assert states(found, places, NOW + SECOND) == 2 * [Standing.SOLD_OUT]
    with pytest.raises(ConflictError, match="sold-out"):
        drop.join(found, None, uuid4(), NOW)
    found = drop.admit(found, tea(1), 0, NOW + 2 * SECOND)
    assert states(found, places, NOW + 2 * SECOND) == [Standing.ADMITTED, Standing.WAITING]


def test_what_nobody_counts_is_let_in_for_at_the_rate() -> None:
    found, _ = queue(opened(), 50)
    assert drop.admit(found, tea(0, policy=StockPolicy.UNTRACKED), 0, NOW + SECOND).served_number == 50


def test_a_place_is_one_a_subject_and_who_was_served_comes_last() -> None:
    found, [mine, other] = queue(opened(), 2)
    assert drop.join(found, mine, mine.subject_id, NOW) is None
    found = drop.admit(found, tea(1), 0, NOW + SECOND)
    assert drop.join(found, mine, mine.subject_id, NOW + SECOND) is None, "who is let in has a place"
    again = drop.join(found, drop.use(mine, uuid4()), mine.subject_id, NOW + SECOND)
    assert again is not None
    assert again[1].number == other.number + 1
    assert again[1].checkout_id is None


def test_a_drop_that_was_taken_away_and_comes_back_knows_nobody_of_before() -> None:
    found, places = queue(opened(), 3)
    found = drop.admit(found, tea(1), 0, NOW + SECOND)
    found = drop.put(drop.take_away(found, NOW), TENANT, "tea", FAST, NOW + 2 * SECOND)
    assert found.rated_at == NOW + 2 * SECOND, "the time while it was away lets nobody in"
    assert states(found, places, NOW + 2 * SECOND) == [None, None, None]
    found, [place] = queue(found, 1)
    assert place.number == 4
    assert drop.admit(found, tea(9), 0, NOW + 4 * SECOND).served_number == 4


def test_a_drop_ends_by_its_time_and_the_terms_of_one_that_is_on_keep_its_queue() -> None:
    found, [place] = queue(opened(), 1)
    changed = drop.put(found, TENANT, "tea", Terms(per_minute=1, ends_at=NOW + 9 * SECOND), NOW)
    assert drop.standing(changed, place, NOW) is Standing.WAITING
    assert drop.standing(changed, place, NOW + 9 * SECOND) is Standing.OVER
    assert drop.may_buy(changed, None, NOW + 9 * SECOND)
    with pytest.raises(ConflictError, match="drop-over"):
        drop.join(changed, place, place.subject_id, NOW + 9 * SECOND)
    with pytest.raises(RejectedError, match="drop-ends-before"):
        drop.put(found, TENANT, "tea", Terms(per_minute=1, ends_at=NOW), NOW)


Steps = st.lists(st.tuples(st.sampled_from(["join", "admit", "buy", "restock"]), st.integers(1, 40)), max_size=40)


@given(steps=Steps, units=st.integers(0, 30), per_minute=st.sampled_from([1, 7, 60, 6_000]), patience=st.sampled_from([30, 300]))
def test_whatever_happens_numbers_are_served_in_order_and_never_more_may_come_than_there_are_units_and_a_few(
    steps: list[tuple[str, int]], units: int, per_minute: int, patience: int
) -> None:
    found, now, places, bought = opened(Terms(per_minute=per_minute, patience_seconds=patience)), NOW, list[Place](), 0
    for step, count in steps:
        now += count * SECOND
        match step:
            case "join" if not found.sold_out:
                found, more = queue(found, count)
                places += more
            case "admit":
                before = unused(found, places, now)
                after = drop.admit(found, tea(units), before, now)
                let_in = after.served_number - found.served_number
                assert let_in <= max(0, units + units * OVERCOMMIT_PERCENT // 100 - before)
                assert not let_in or let_in <= max(5.0, 120 / per_minute) * per_minute / 60
                found = after
            case "buy":
                may = [place for place in places if drop.standing(found, place, now) is Standing.ADMITTED][:units]
                for place in may:
                    places[places.index(place)] = drop.use(place, uuid4())
                units, bought = units - len(may), bought + len(may)
            case "restock":
                units += count
            case _:
                pass  # nobody joins what is sold out
        told = states(found, places, now)
        waits = [index for index, each in enumerate(told) if each in {Standing.WAITING, Standing.SOLD_OUT}]
        assert not waits or Standing.ADMITTED not in told[waits[0] :], "nobody is let in before who came earlier"
    assert bought == sum(1 for place in places if place.checkout_id)


# --- At the checkout -------------------------------------------------------------------------------------------------


def buy(memory: Memory, subject_id: UUID, now: datetime = NOW) -> Checkout:
    command = StartCheckout(
        checkout_id=uuid4(),
        cart_id=uuid4(),
        subject_id=subject_id,
        method="pm_card_visa",
        email=None,
        body_digest="body",
        ttl_seconds=900,
    )
    started: Checkout = memory.execute(command, now=now)
    memory.execute(frozen(started, [("tea", 1)]), now=now)
    return memory.get(Checkout, started.id)


def join(memory: Memory, subject_id: UUID) -> Stands:
    stands: Stands = memory.execute(JoinQueue(sku="tea", subject_id=subject_id))
    return stands


def let_in(memory: Memory, *, unused: int = 0) -> int:
    found = memory.get(Drop, drop.drop_id("tea"))
    command = LetIn(drop_id=found.id, served_number=found.served_number, unused=unused)
    count: int = memory.execute(command, now=NOW + SECOND)
    return count


def test_only_who_was_let_in_buys_and_once() -> None:
    memory, early, late = shop(tea=1), uuid4(), uuid4()
    memory.execute(PutDrop(sku="tea", terms=FAST))
    assert [join(memory, each).place.number for each in (early, late, early)] == [1, 2, 1]
    turned = buy(memory, early)
    assert (turned.state, turned.reason, turned.waiting_for) == (CheckoutState.FAILED, "waiting-room", "tea")
    assert let_in(memory) == 1
    assert buy(memory, late, NOW + SECOND).reason == "waiting-room"
    bought = buy(memory, early, NOW + SECOND)
    assert bought.state is CheckoutState.PAYING
    assert memory.get(Place, drop.place_id(drop.drop_id("tea"), early)).checkout_id == bought.id
    assert buy(memory, early, NOW + SECOND).reason == "waiting-room", "it is a right to one checkout"


def test_what_was_counted_before_somebody_else_let_others_in_lets_in_nobody() -> None:
    memory = shop(tea=9)
    memory.execute(PutDrop(sku="tea", terms=FAST))
    for _ in range(3):
        join(memory, uuid4())
    stale = LetIn(drop_id=drop.drop_id("tea"), served_number=0, unused=0)
    assert let_in(memory) == 3
    join(memory, uuid4())
    assert memory.execute(stale, now=NOW + 9 * SECOND) == 0


def test_a_drop_that_is_taken_away_lets_everybody_buy() -> None:
    memory = shop(tea=1)
    memory.execute(PutDrop(sku="tea", terms=FAST))
    memory.execute(DeleteDrop(sku="tea"))
    assert buy(memory, uuid4()).state is CheckoutState.PAYING


@pytest.mark.parametrize("crowd", [2, 200, 20_000, 2_000_000])
def test_however_many_wait_they_ask_at_a_rate_that_can_be_borne_and_the_next_is_heard_at_once(crowd: int) -> None:
    found = replace(opened(Terms(per_minute=600)), last_number=crowd)
    place = Place(tenant_id=TENANT, id=uuid4(), drop_id=found.id, subject_id=uuid4(), number=1, joined_at=NOW)
    numbers = range(1, crowd + 1, max(crowd // 20_000, 1))
    pauses = [drop.pause_seconds(found, replace(place, number=number), NOW) for number in numbers]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1] <= 600) == (1, True)
    if crowd <= 60_000:
        assert sum(1 / pause for pause in pauses) < 300
