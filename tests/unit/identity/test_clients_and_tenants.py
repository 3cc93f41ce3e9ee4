"""A client's secrets and a tenant's way: what is there no more is gone for good, and what is said again changes nothing."""

import hashlib
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.clock import PLATFORM
from libs.common.errors import CartwrightError, ConflictError, NotFoundError, NotYetError
from services import SERVICES
from services.identity.domain import client, tenant
from services.identity.domain.client import MAX_SECRETS, Client, Secret
from services.identity.domain.tenant import PROVISIONERS, Tenant, TenantStatus
from tests.unit.memory import NOW, TENANT

S = TenantStatus
GONE = {S.ERASING, S.ERASED}
ONE, TWO = (Secret(id=UUID(int=number), digest=client.digest_of(str(number)), created_at=NOW) for number in (1, 2))
TILL = Client(tenant_id=TENANT, id="till", subject_id=UUID(int=9), name="till", scopes=("carts:read",), secrets=(ONE,))
SHOP = Tenant(
    tenant_id=TENANT,
    version=4,
    slug="shop",
    name="Shop",
    status=S.ACTIVE,
    currency="GBP",
    country="GB",
    admin_email="owner@shop.test",
    provisioned=tuple(sorted(PROVISIONERS)),
    settings={"capture": "on-shipment"},
)


def test_a_client_is_known_by_each_of_its_secrets_until_that_or_it_is_gone() -> None:
    both = client.add_secret(TILL, TWO)
    assert [client.authenticates(both, secret) for secret in ("1", "2", "3")] == [True, True, False]
    with pytest.raises(ConflictError, match="too-many-secrets"):
        client.add_secret(both, TWO)
    assert len(both.secrets) == MAX_SECRETS
    left = client.remove_secret(both, ONE.id)
    assert [client.authenticates(left, secret) for secret in ("1", "2")] == [False, True]
    with pytest.raises(NotFoundError, match="secret-not-found"):
        client.remove_secret(left, ONE.id)
    gone = client.delete(both, NOW)
    assert (gone.secrets, gone.deleted_at, gone.is_gone, TILL.is_gone) == ((), NOW, True, False)
    assert not client.authenticates(replace(both, deleted_at=NOW), "1")
    assert not client.authenticates(None, "1")


def test_a_clients_id_names_its_tenant_and_no_other_text_does() -> None:
    named = client.client_id_of(TENANT, UUID(int=9))
    assert client.tenant_of(named) == TENANT
    assert [client.tenant_of(text) for text in (client.PLATFORM_CLIENT, f"{named}0", f"x{named}")] == [None] * 3


def test_the_platforms_operator_has_the_one_secret_that_is_given_and_is_left_alone_if_it_has_it() -> None:
    made = client.operator(None, PLATFORM, "digest", ("tenants:manage",), NOW)
    assert (made.id, made.tenant_id, made.scopes) == (client.PLATFORM_CLIENT, PLATFORM, ("tenants:manage",))
    assert [secret.digest for secret in made.secrets] == ["digest"]
    assert client.operator(made, PLATFORM, "digest", ("tenants:manage",), NOW) is made
    other = client.operator(made, PLATFORM, "another", ("tenants:manage",), NOW)
    assert ([secret.digest for secret in other.secrets], other.id) == (["another"], made.id)
    assert client.operator(made, PLATFORM, "digest", ("audit:read",), NOW).scopes == ("audit:read",)


def test_a_tenant_takes_what_it_is_given_one_by_one_and_nothing_new_is_no_news() -> None:
    changed, told = tenant.change(SHOP, "New", {"capture": None, "tax_rounding": "line"})
    assert (changed.name, changed.settings) == ("New", {"tax_rounding": "line"})
    assert told is not None
    assert (told.version, told.settings, told.slug, told.status) == (5, {"tax_rounding": "line"}, "shop", "active")
    assert tenant.change(SHOP, "Shop", {}) == (SHOP, None)
    for nothing in ({}, {"capture": "on-shipment"}, {"pay_later": None}):
        assert tenant.change(SHOP, None, nothing) == (SHOP, None)
    with pytest.raises(NotFoundError, match="tenant-not-found"):
        tenant.change(None, "New", {})


def test_the_last_service_to_speak_makes_a_new_tenant_active_and_no_other() -> None:
    new = replace(SHOP, status=S.PROVISIONING, provisioned=())
    *first, last = PROVISIONERS
    for service in first:
        new, told = tenant.note_provisioned(new, service)
        assert (new.status, told) == (S.PROVISIONING, None)
    assert tenant.note_provisioned(new, first[0]) == (new, None)
    active, told = tenant.note_provisioned(new, last)
    assert told is not None
    assert (active.status, told.status, active.provisioned) == (S.ACTIVE, "active", tuple(sorted(PROVISIONERS)))
    suspended = replace(SHOP, status=S.SUSPENDED, provisioned=())
    for service in PROVISIONERS:
        suspended, told = tenant.note_provisioned(suspended, service)
        assert (suspended.status, told) == (S.SUSPENDED, None)


def test_shoppers_come_in_where_it_is_open_and_machines_where_it_is_being_set_up_too() -> None:
    def refusal(demand: Any, *arguments: Any) -> str:
        try:
            demand(*arguments)
        except CartwrightError as error:
            return error.code
        return ""

    of_shoppers = {status: refusal(tenant.demand_active, replace(SHOP, status=status)) for status in S}
    of_machines = {status: refusal(tenant.demand_admitting, replace(SHOP, status=status), TENANT) for status in S}
    assert {status for status, code in of_shoppers.items() if not code} == {S.ACTIVE}
    assert {status for status, code in of_machines.items() if not code} == {S.ACTIVE, S.PROVISIONING}
    assert (of_shoppers[S.SUSPENDED], of_shoppers[S.CLOSING]) == ("tenant-suspended", "tenant-closing")
    assert {of_shoppers[status] for status in (S.PROVISIONING, S.ERASING, S.ERASED)} == {"tenant-not-found"}
    assert set(of_machines.values()) == {"", "tenant-status"}
    assert refusal(tenant.demand_active, None) == refusal(tenant.demand_admitting, None, TENANT) == "tenant-not-found"
    assert {status for status in S if replace(SHOP, status=status).is_news} == set(S) - {S.PROVISIONING}


def test_who_was_let_in_reads_on_where_nothing_new_begins_and_nobody_where_it_is_over() -> None:
    assert {status for status in S if replace(SHOP, status=status).admits_clients} == set(S) - GONE
    assert {status for status in S if replace(SHOP, status=status).admits_shoppers} == set(S) - GONE - {S.PROVISIONING}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PROVISIONERS), st.integers(1, 12)), max_size=12))
def test_a_suspension_is_known_when_every_service_has_said_so_of_it_or_of_what_came_later(words: list[tuple[str, int]]) -> None:
    resumed = replace(SHOP, told_version=3, acknowledged=tuple(sorted(PROVISIONERS)))
    suspended, told = tenant.settle(resumed, S.SUSPENDED)
    assert told is not None
    assert (told.status, told.version, suspended.is_known) == ("suspended", suspended.told_version, False)
    assert tenant.settle(suspended, S.SUSPENDED) == (suspended, None), "said again it is no news"
    for service, version in words:
        suspended = tenant.note_acknowledged(suspended, service, version)
    heard = {service for service, version in words if version >= told.version}
    assert (set(suspended.acknowledged), suspended.is_known) == (heard, heard == set(PROVISIONERS))
    assert suspended.status is S.SUSPENDED


def test_of_a_tenant_that_nobody_suspended_no_word_is_kept() -> None:
    assert SHOP.is_known
    assert tenant.note_acknowledged(SHOP, "cart", 99) == SHOP
    with pytest.raises(NotFoundError, match="tenant-not-found"):
        tenant.settle(None, S.SUSPENDED)


def test_a_tenant_goes_these_ways_and_no_others() -> None:
    ways = {(S.PROVISIONING, S.ACTIVE), (S.PROVISIONING, S.CLOSING), (S.ACTIVE, S.SUSPENDED), (S.ACTIVE, S.CLOSING)}
    ways |= {(S.SUSPENDED, S.ACTIVE), (S.SUSPENDED, S.CLOSING), (S.CLOSING, S.ERASING), (S.ERASING, S.ERASED)}
    for start in S:
        for to in S:
            if (start, to) in ways:
                assert tenant.move(replace(SHOP, status=start), to).status is to
            else:
                with pytest.raises(ConflictError, match="tenant-status"):
                    tenant.move(replace(SHOP, status=start), to)


def test_what_was_said_once_and_is_forgotten_stands_and_the_next_word_is_news() -> None:
    known = replace(SHOP, status=S.ACTIVE, version=3, settings={"capture": "on-shipment"})
    for version in (1, 3):
        assert tenant.recall(known, replace(tenant.updated(known), version=version, status="closing")) == known, (
            "it is known here"
        )
    recalled = tenant.recall(known, replace(tenant.updated(known), version=7, status="suspended", settings={}, cell="east"))
    assert (recalled.status, recalled.version, recalled.settings, recalled.name) == (S.SUSPENDED, 7, {}, known.name)
    assert recalled.cell == "east", "its rows were brought there, and are nowhere else"
    assert tenant.updated(recalled).version == 8
    erased = tenant.recall(known, replace(tenant.updated(known), version=9, status="erased", slug="", currency="XXX"))
    assert (erased.status, erased.slug, erased.currency) == (S.ERASING, known.slug, known.currency), "there is something to erase"
    tenant.demand_recalled(erased, 99)
    tenant.demand_recalled(known, 3)
    with pytest.raises(NotYetError):
        tenant.demand_recalled(known, 4)


def test_a_tenant_is_in_one_cell_until_it_is_placed_in_another_and_for_good_once_it_is_erased() -> None:
    placed, told = tenant.place(SHOP, "east")
    assert told is not None
    assert (placed.cell, told.cell, told.version) == ("east", "east", SHOP.version + 1)
    assert (replace(placed, cell="main"), tenant.updated(SHOP).cell) == (SHOP, "main"), "nothing else of it changes"
    assert tenant.place(placed, "east") == (placed, None), "said again, it changes nothing"
    for status in GONE:
        gone = replace(placed, status=status)
        assert tenant.place(gone, "east") == (gone, None)
        with pytest.raises(ConflictError, match="tenant-status"):
            tenant.place(gone, "main")
    with pytest.raises(NotFoundError, match="tenant-not-found"):
        tenant.place(None, "east")


def test_a_tenant_is_buried_once_every_service_has_said_its_word_and_what_is_left_says_nothing_of_it() -> None:
    closing = replace(SHOP, status=S.CLOSING, settings={"require_totp": True})
    for status in set(S) - {S.CLOSING} - GONE:
        with pytest.raises(ConflictError, match="tenant-status"):
            tenant.settle(replace(SHOP, status=status), S.ERASING)
    erasing, told = tenant.settle(closing, S.ERASING)
    assert told is not None
    assert (told.status, told.erased_by) == ("erasing", [])
    assert tenant.note_erased(closing, "cart", "a") == (closing, None), "nobody asked for it"
    assert tenant.note_settled(closing, "payments") == (closing, None)
    erasing, told = tenant.note_settled(erasing, "payments")
    assert told is not None
    assert (told.settled_by, told.erased_by) == (["payments"], [])
    assert tenant.note_settled(erasing, "payments") == (erasing, None), "said again, it changes nothing"
    for number, service in enumerate(tenant.PROVISIONERS, 1):
        with pytest.raises(ConflictError, match=service):
            tenant.bury(erasing, "b", NOW)
        erasing, told = tenant.note_erased(erasing, service, "a")
        assert told is not None
        assert (told.status, len(told.erased_by), told.slug) == ("erasing", number, SHOP.slug)
        assert tenant.note_erased(erasing, service, "c") == (erasing, None), "said again, it changes nothing"
    left, last = tenant.bury(erasing, "b", NOW)
    assert (left.slug, left.name, left.admin_email, left.country, left.settings, left.provisioned) == ("", "", "", "", {}, ())
    lines = "".join(f"{service} {'b' if service == 'identity' else 'a'}\n" for service in SERVICES)
    assert (left.erased_at, left.export_sha256) == (NOW, hashlib.sha256(lines.encode()).hexdigest())
    assert (last.status, last.slug, last.country, last.settings, last.erased_by) == ("erased", "", "", {}, [])
    assert last.version == erasing.version + 1
    assert tenant.settle(left, S.ERASING) == (left, None), "said again, it changes nothing"
