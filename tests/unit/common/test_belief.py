from dataclasses import replace
from uuid import UUID

import pytest

from libs.common.clock import PLATFORM
from libs.common.contracts import Event, fulfilment
from libs.common.contracts.cart import CartFreezeRefused, CartReopened
from libs.common.contracts.identity import SigningKeyUpdated, TenantUpdated
from libs.common.messaging.envelope import Invalid, Reader, Received
from tests.shared.records import NOW, TENANT, changed, written


def test_what_is_ours_is_believed_from_its_owners_relay_alone() -> None:
    mine, reader = written(CartReopened(cart_id=UUID(int=1), checkout_id=UUID(int=2))), Reader([CartReopened])
    assert isinstance(reader.read(mine), Received)
    for record in (
        changed(mine, ce_source=b"/test"),
        changed(mine, ce_source=b"/cartwright/checkout"),
        changed(mine, ce_source=b"/cartwright/CART"),
        changed(mine, ce_source=b"/cartwright/cart/"),
        changed(mine, ce_relayposition=None),
        changed(mine, ce_relayposition=b"cart"),
        changed(mine, ce_relayposition=b"payments/1.1.1"),
        changed(mine, ce_relayposition=b"/1.1.1"),
    ):
        found = reader.read(record)
        assert isinstance(found, Invalid)
        assert found.reason == "foreign-source"


def test_what_has_another_key_where_its_aggregate_is_not_there_names_that_one_alone() -> None:
    refused = CartFreezeRefused(cart_id=UUID(int=1), checkout_id=UUID(int=2), reason="cart-not-found")
    theirs, reader = written(refused), Reader([CartFreezeRefused])
    for mine, expected in ((1, Received), (2, Received), (3, Invalid)):
        key = f"{TENANT}:{UUID(int=mine)}".encode()
        named = changed(replace(theirs, key=key), ce_subject=str(UUID(int=mine)).encode(), ce_partitionkey=key)
        assert isinstance(reader.read(named), expected)
    assert isinstance(reader.read(replace(theirs, key=f"{TENANT}:{UUID(int=2)}".encode())), Invalid), "two names for one event"


ORDER, SHOP = UUID(int=0xABC), UUID(int=0xA)


@pytest.mark.parametrize(
    "event",
    [
        fulfilment.ShipmentDelivered(order_id=ORDER, shipment_id="S-1"),
        CartReopened(cart_id=ORDER, checkout_id=UUID(int=2)),
    ],
)
def test_a_uuid_is_the_same_in_capitals_and_no_other_aggregate_is(event: Event) -> None:
    theirs, reader = written(event), Reader([type(event)])
    loud = f"{SHOP}:{ORDER}".upper().encode()
    capitals = {"ce_tenantid": str(SHOP).upper().encode(), "ce_partitionkey": loud, "ce_subject": str(ORDER).upper().encode()}
    assert isinstance(reader.read(changed(replace(theirs, key=loud), **capitals)), Received)
    other = UUID(int=0xDEF)
    for record in (
        replace(theirs, key=f"{SHOP}:{other}".encode()),
        replace(theirs, key=f"{SHOP}:S-1".encode()),
        changed(theirs, ce_subject=b"S-1"),
        changed(theirs, ce_subject=str(other).encode()),
        changed(replace(theirs, key=f"{SHOP}:{other}".encode()), ce_subject=str(other).encode(), ce_partitionkey=None),
        changed(theirs, ce_partitionkey=str(ORDER).encode()),
    ):
        found = reader.read(record)
        assert isinstance(found, Invalid)
        assert found.reason == "tenant-mismatch"


def test_what_belongs_to_the_platform_and_what_is_a_tenant_name_one_subject_too() -> None:
    key = SigningKeyUpdated(kid="k1", jwk={}, state="active", not_before=NOW)
    theirs, reader = written(key, tenant_id=PLATFORM), Reader([SigningKeyUpdated, TenantUpdated])
    assert isinstance(reader.read(theirs), Received)
    tenant = written(TenantUpdated(tenant_id=TENANT, version=1, slug="t", status="active", currency="GBP", country="GB"))
    assert isinstance(reader.read(tenant), Received)
    other = str(UUID(int=0xB))
    for record in (
        replace(theirs, key=b"K1"),
        replace(theirs, key=b"k2"),
        replace(theirs, key=f"{PLATFORM}:k1".encode()),
        changed(theirs, ce_subject=b"k2"),
        changed(theirs, ce_partitionkey=b"k2"),
        replace(tenant, value=(tenant.value or b"").replace(str(TENANT).encode(), other.encode())),
        changed(tenant, ce_subject=other.encode()),
        changed(
            replace(
                tenant,
                key=f"{TENANT}:{other}".encode(),
                value=(tenant.value or b"").replace(str(TENANT).encode(), other.encode()),
            ),
            ce_subject=other.encode(),
            ce_partitionkey=f"{TENANT}:{other}".encode(),
        ),
    ):
        found = reader.read(record)
        assert isinstance(found, Invalid)
        assert found.reason == "tenant-mismatch"
