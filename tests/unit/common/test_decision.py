"""What one decision sees and leaves behind: all of it, once it is over, or nothing."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from libs.common.clock import new_id
from libs.common.contracts.checkout import CheckoutRequested, PaymentVoidRequested
from libs.common.decision import (
    Aggregate,
    Entry,
    Handlers,
    IdentityMap,
    Message,
    NotLoadedError,
    Ref,
    Unreadable,
    UnreadableError,
    Viewer,
    World,
    absent,
    foreign,
    present,
)
from libs.common.errors import ForeignError, NotFoundError
from tests.unit.memory import NOW, TENANT


@dataclass(frozen=True, kw_only=True, slots=True)
class ShopThing(Aggregate):
    OWNER = "whose"
    id: UUID
    whose: UUID
    gone: bool = False

    @property
    def is_gone(self) -> bool:
        return self.gone


ME, YOU, THING = UUID(int=1), UUID(int=2), UUID(int=3)
MINE = ShopThing(tenant_id=TENANT, id=THING, whose=ME, version=4, sequence=2)
REQUESTED = CheckoutRequested(checkout_id=THING, cart_id=YOU, subject_id=ME)
VOID = PaymentVoidRequested(checkout_id=THING, payment_id=YOU, reason="canceled")


def _map(*rows: Any) -> IdentityMap:
    aggregates = IdentityMap()
    aggregates.put_loaded(ShopThing, [aggregates.entries[ShopThing, TENANT, THING]], rows)
    return aggregates


def _world(aggregates: IdentityMap) -> World:
    return World(aggregates, Message(data=None, tenant_id=TENANT, id="m", time=NOW), NOW, new_id)


def test_what_is_saved_is_one_version_on_and_its_events_are_numbered_after_those_before() -> None:
    aggregates = _map(MINE)
    world = _world(aggregates)
    saved = world.save(MINE, REQUESTED, VOID)
    assert (saved.version, saved.sequence, saved.tenant_id, saved.whose) == (5, 4, TENANT, ME)
    assert world.get(ShopThing, THING) is saved
    assert (aggregates.changed, aggregates.published) == ({}, []), "nothing stands before the decision is over"
    world.remind("name", THING, NOW)
    world.remind("name", THING, NOW + timedelta(1))
    world.commit()
    assert [(each.event, each.aggregate_id, each.sequence) for each in aggregates.published] == [
        (REQUESTED, str(THING), 3),
        (VOID, str(THING), 4),
    ]
    assert aggregates.reminders == {(TENANT, "name", THING): NOW + timedelta(1)}, "the last word counts"
    assert [(entry.state, entry.stored_version) for entry in aggregates.changed] == [(saved, 4)]
    assert _world(aggregates).get(ShopThing, THING) is saved, "the next decision sees it"


def test_an_event_goes_by_its_aggregate_or_by_the_other_key_that_it_declares_and_by_nothing_else() -> None:
    aggregates = _map()
    world = _world(aggregates)
    world.publish(VOID, 1, by="payment_id")
    world.publish(VOID, 2)
    with pytest.raises(TypeError, match="nobody would believe it"):
        world.publish(REQUESTED, 1, by="cart_id")
    world.commit()
    assert [each.aggregate_id for each in aggregates.published] == [str(YOU), str(THING)]


def test_what_was_not_loaded_what_is_absent_and_what_nobody_can_read_are_three_things() -> None:
    assert _world(_map()).get(ShopThing, THING) is None
    with pytest.raises(NotLoadedError):
        _world(_map()).get(ShopThing, YOU)
    with pytest.raises(UnreadableError, match="ShopThing"):
        _world(_map(Unreadable(TENANT, THING, ValueError("no")))).get(ShopThing, THING)
    missing = _map(MINE).missing(TENANT, [Ref(ShopThing, THING), Ref(ShopThing, YOU)])
    assert [ref.key for ref in missing] == [YOU]
    assert isinstance(Entry(ShopThing, TENANT, THING).is_known, bool)
    assert not Entry(ShopThing, TENANT, THING).is_known


def test_a_thing_is_its_owners_and_its_tenants_staffs_and_to_everybody_else_as_absent_as_none() -> None:
    mine, yours, staff = (Viewer(subject_id=who, sees_all=all_) for who, all_ in ((ME, False), (YOU, False), (YOU, True)))
    assert [viewer.sees(MINE) for viewer in (mine, yours, staff)] == [True, False, True]
    assert [viewer.own(ShopThing) for viewer in (mine, staff)] == [{"whose": ME}, {}]
    assert mine.demand(ShopThing, MINE) is MINE
    told = []
    for viewer, found in ((yours, MINE), (mine, None)):
        with pytest.raises(NotFoundError) as refused:
            viewer.demand(ShopThing, found)
        told.append(str(refused.value))
    gone = ShopThing(tenant_id=TENANT, id=THING, whose=ME, gone=True)
    with pytest.raises(NotFoundError):
        present(ShopThing, gone)
    assert told == [str(absent(ShopThing))] * 2 == [str(foreign(ShopThing))] * 2
    for error in (absent(ShopThing), foreign(ShopThing)):
        assert (error.code, error.detail) == ("shop-thing-not-found", "there is no such shop thing for you")
    assert isinstance(foreign(ShopThing), ForeignError)
    assert (tuple(MINE.news), MINE.is_news, MINE.key) == ((str(THING),), True, THING)


def test_what_is_registered_for_a_message_is_what_decides_upon_it_and_upon_its_discard() -> None:
    handlers = Handlers()

    def refs(_message: Message[Any]) -> list[Ref]:
        return [Ref(ShopThing, THING)]

    @handlers.on(CheckoutRequested, refs, is_delta=True)
    def decide(_world: World, _message: Message[CheckoutRequested]) -> str:
        return "decided"

    @handlers.on_discard(CheckoutRequested, refs)
    def forget(_world: World, _message: Message[CheckoutRequested]) -> None:
        """It will never come."""

    @handlers.on(str, refs)
    def carry_out(_world: World, _message: Message[str]) -> None:
        """A command."""

    assert (handlers[CheckoutRequested].decide, handlers[CheckoutRequested].refs) == (decide, refs)
    assert (handlers[CheckoutRequested].is_delta, handlers[str].is_delta, handlers[str].more) == (True, False, None)
    assert (handlers.discards[CheckoutRequested].decide, handlers.discards[CheckoutRequested].refs) == (forget, refs)
    assert (handlers[str].decide, handlers.events()) == (carry_out, [CheckoutRequested])
