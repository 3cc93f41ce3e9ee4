"""Whose acts are told of, what is told of them, and what is left out."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest

from libs.common.decision import Aggregate, Handlers, IdentityMap, Message, Ref, World
from libs.common.errors import ConflictError
from libs.common.http.asking import network_of
from libs.common.messaging.audit import hyphened, origin_of
from libs.common.messaging.shell import Failure, _decided
from libs.common.origin import Origin
from tests.shared.callers import message
from tests.unit.memory import NOW, TENANT

STAFF = Origin(actor="somebody", client_id="till", request_id="r")
SHOPPER = replace(STAFF, by_shopper=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sign(Aggregate):
    """What is hung out."""

    id: UUID
    text: str


@dataclass(frozen=True, slots=True)
class HangSign:
    """Hang it out, or fail when it is halfway up."""

    id: UUID
    text: str


KEY = UUID(int=1)


def _hang(world: World, told: Message[HangSign]) -> Sign:
    known = world.get(Sign, told.data.id)
    sign = Sign(tenant_id=TENANT, id=told.data.id, text=told.data.text)
    saved = world.save(replace(known, text=told.data.text) if known else sign)
    if told.data.text == "crooked":
        raise ConflictError("crooked", "it fell down")
    return saved


def _asked(origin: Origin | None, text: str = "open") -> Message[HangSign]:
    told = message(HangSign(KEY, text), TENANT)
    told.origin, told.source = origin, "/cartwright/shop"
    return told


def _handler(**how: Any) -> Any:
    handlers = Handlers()
    handlers.on(HangSign, lambda m: [Ref(Sign, m.data.id)], **how)(_hang)
    return handlers[HangSign]


@pytest.mark.parametrize(
    ("how", "origin", "actor"),
    [
        ({}, STAFF, "somebody"),
        ({}, Origin(actor=""), ""),
        ({}, SHOPPER, None),
        ({}, None, None),
        ({"unaudited": "it is everybody's"}, STAFF, None),
        ({"always_audited": True}, None, "/cartwright/shop"),
        ({"always_audited": True}, STAFF, "somebody"),
        ({"always_audited": True}, SHOPPER, "somebody"),
    ],
)
def test_what_anybody_but_a_shopper_asks_for_is_told_unless_its_handler_says_why_not(
    how: dict[str, Any], origin: Origin | None, actor: str | None
) -> None:
    handler, told = _handler(**how), _asked(origin)
    named = origin_of(told, handler)
    assert (None if named is None else named.actor) == actor
    aggregates = IdentityMap()
    aggregates.put_loaded(Sign, [aggregates.entries[Sign, TENANT, KEY]], [])
    _decided(aggregates, told, handler, NOW)
    assert [each.origin.actor for each in aggregates.acts] == ([] if actor is None else [actor])


def test_a_change_is_told_as_it_was_before_and_is_after_and_what_failed_changed_nothing() -> None:
    handler, aggregates = _handler(), IdentityMap()
    aggregates.put_loaded(Sign, [aggregates.entries[Sign, TENANT, KEY]], [])
    for text in ("open", "crooked", "closed"):
        answer = _decided(aggregates, _asked(STAFF, text), handler, NOW)
        assert isinstance(answer, Failure) is (text == "crooked")
    told = [(each.before and each.before.version, each.after.version, each.message.data.text) for each in aggregates.acts]
    assert told == [(None, 1, "open"), (1, 2, "closed")]


def test_of_an_address_its_network_is_kept() -> None:
    assert network_of("203.0.113.77") == "203.0.113.0/24"
    assert network_of("2001:db8:1:2::/64") == "2001:db8:1::/48"
    assert network_of("2001:db8:1:2:3:4:5:6") == "2001:db8:1::/48"
    assert [network_of(each) for each in ("", "testclient", "203.0.113.777")] == [""] * 3


def test_an_act_and_a_thing_are_called_by_their_classes_in_small_letters() -> None:
    assert [hyphened(each) for each in ("CreateClient", "Refund", "RewrapAccount2Times")] == [
        "create-client",
        "refund",
        "rewrap-account2-times",
    ]
