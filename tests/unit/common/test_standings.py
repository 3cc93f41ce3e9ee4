"""Where nothing new may begin: what a process hears of tenants, in whatever order, and the routes that go on all the same."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import BaseRoute

from deploy.composition import parts_of
from libs.common.clock import PLATFORM
from libs.common.errors import DeniedError, UnavailableError
from libs.common.http.routes import GuardedRoute
from libs.common.standings import Standings
from services import SERVICES

SHOP, OTHER = UUID(int=1), UUID(int=2)
STATUSES = ("provisioning", "active", "suspended", "closing", "erasing", "erased", "a word of tomorrow")

FED = ("cart", "checkout", "payments")

GOES_ON = {
    "DELETE /v1/api-keys/{key_id}",
    "DELETE /v1/clients/{client_id}",
    "DELETE /v1/clients/{client_id}/secrets/{secret_id}",
    "DELETE /v1/invitations/{invitation_id}",
    "DELETE /v1/members/{member_id}",
    "POST /v1/checkouts/{checkout_id}/cancel",
    "POST /v1/orders/{order_id}/cancel",
    "POST /v1/orders/{order_id}/refunds",
    "POST /v1/payments/{payment_id}/capture",
    "POST /v1/payments/{payment_id}/refunds",
    "POST /v1/payments/{payment_id}/resolve",
    "POST /v1/payments/{payment_id}/void",
    "POST /v1/reconciliations/{reconciliation_id}/breaks/{break_id}/close",
    "POST /v1/refunds/{refund_id}/close",
    *(f"POST /v1/{service}-parked-messages/{{parked_id}}/{verb}" for service in FED for verb in ("replay", "discard")),
}
"""What writes for a tenant that may begin nothing new: it ends what was begun, or takes a right away."""


def _may_begin(standings: Standings, tenant_id: UUID = SHOP) -> str:
    try:
        standings.demand_open(tenant_id)
    except DeniedError as error:
        return f"{error.status} {error.code}"
    return ""


def _may_read(standings: Standings) -> str:
    try:
        standings.demand_there(SHOP)
    except DeniedError as error:
        return f"{error.status} {error.code}"
    return ""


@settings(deadline=None)
@given(st.dictionaries(st.integers(1, 9), st.sampled_from(STATUSES), min_size=1), st.randoms())
def test_the_latest_word_on_a_tenant_counts_however_late_and_often_the_others_come(words: dict[int, str], chance: object) -> None:
    heard = [*words, *words]
    chance.shuffle(heard)  # type: ignore[attr-defined]
    standings = Standings()
    for version in heard:
        standings.learn(SHOP, version, words[version])
    status = words[max(words)]
    assert _may_begin(standings) == ("" if status in {"provisioning", "active"} else f"403 tenant-{status}")
    assert _may_read(standings) == (f"403 tenant-{status}" if status in {"erasing", "erased"} else "")
    assert not _may_begin(standings, OTHER)
    assert not _may_begin(standings, PLATFORM)


def test_until_all_was_heard_nothing_begins_for_anybody() -> None:
    standings = Standings(follows=True)
    standings.learn(SHOP, 1, "active")
    for tenant_id in (SHOP, OTHER):
        with pytest.raises(UnavailableError, match="tenants-unavailable"):
            standings.demand_open(tenant_id)
    standings.read_to_its_end()
    standings.demand_open(SHOP)


def _guarded(routes: list[BaseRoute]) -> Iterator[tuple[str, GuardedRoute]]:
    for route in routes:
        if isinstance(route, GuardedRoute) and route.rule.permission is not None and not route.rule.platform_only:
            yield from ((f"{method} {route.path_format}", route) for method in route.methods or ())


def test_reading_goes_on_and_of_what_writes_that_alone_which_ends_something() -> None:
    found = dict(each for service in SERVICES for each in _guarded(parts_of(service).routes.routes))
    assert all(route.rule.goes_on for name, route in found.items() if name.startswith("GET "))
    assert {name for name, route in found.items() if route.rule.goes_on and not name.startswith("GET ")} == GOES_ON


@pytest.mark.parametrize("service", SERVICES)
def test_the_platform_is_no_tenant_and_acts_on_any(service: str) -> None:
    for route in parts_of(service).routes.routes:
        assert isinstance(route, GuardedRoute)
        assert route.rule.permission is not None or route.rule.goes_on, "what is for anybody finds out by itself"
