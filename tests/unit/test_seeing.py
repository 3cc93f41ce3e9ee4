"""Who sees what: every object that a path names is declared to be somebody's, and nobody else is told of it."""

from uuid import uuid4

import pytest
from fastapi import Response

from deploy.composition import parts_of
from libs.common.auth import ROLES, SHOPPER
from libs.common.clock import now
from libs.common.decision import Viewer
from libs.common.errors import NotFoundError
from libs.common.http.routes import Facing, GuardedRoute, Routes, UndeclaredSightError, guard
from libs.common.http.seeing import Sight, made_by_caller
from services import SERVICES
from services.cart.domain import Cart, Product, create
from services.checkout.domain.shipping import ShippingKind, ShippingMethod
from services.payments.repository import REFUNDS


def test_a_route_that_names_an_object_and_not_who_sees_it_keeps_its_service_from_starting() -> None:
    async def answer() -> Response:
        return Response()

    with pytest.raises(UndeclaredSightError, match=r"/v1/things/\{thing_id\} \(.*answer\) does not say who sees its object"):
        Routes(Facing.CUSTOMERS).get("/v1/things/{thing_id}")(guard("carts:read")(answer))


@pytest.mark.parametrize("service", SERVICES)
def test_every_object_in_a_path_of_every_service_says_who_sees_it_and_to_shoppers_is_shown_by_its_owner(service: str) -> None:
    routes = [route for route in parts_of(service).routes.routes if isinstance(route, GuardedRoute)]
    naming = [route for route in routes if "{" in route.path and route.rule.permission is not None]
    assert naming
    for route in naming:
        assert route.rule.sees is not None or route.rule.platform_only, route.path
        if route.rule.permission in ROLES[SHOPPER]:
            assert isinstance(route.rule.sees, Sight) or route.rule.sees is made_by_caller, route.path


def test_what_does_not_say_whose_it_is_is_shown_to_nobody() -> None:
    with pytest.raises(TypeError, match="Refund does not say whose it is"):
        Sight(REFUNDS, "refund_id")


def test_shoppers_see_what_is_theirs_and_what_is_the_tenants_and_everybody_else_sees_it_all() -> None:
    tenant_id, subject_id = uuid4(), uuid4()
    owner, stranger = Viewer(subject_id=subject_id, sees_all=False), Viewer(subject_id=uuid4(), sees_all=False)
    staff = Viewer(subject_id=uuid4(), sees_all=True)
    cart, product = create(tenant_id, uuid4(), subject_id, "EUR", now()), Product(tenant_id=tenant_id, sku="a")
    assert [viewer.sees(cart) for viewer in (owner, stranger, staff)] == [True, False, True]
    assert [viewer.sees(product) for viewer in (owner, stranger, staff)] == [True, True, True]
    assert owner.own(Cart) == {"subject_id": subject_id}
    assert not staff.own(Cart)
    assert not owner.own(Product)
    assert owner.demand(Cart, cart) is cart


def test_what_is_anothers_is_not_told_from_what_is_absent_or_deleted() -> None:
    cart = create(uuid4(), uuid4(), uuid4(), "EUR", now())
    deleted = ShippingMethod(
        tenant_id=cart.tenant_id, code="a", name="A", kind=ShippingKind.FLAT, currency="EUR", rates=(), deleted_at=now()
    )
    shopper = Viewer(subject_id=uuid4(), sees_all=False)
    for kind, found in ((Cart, cart), (Cart, None)):
        with pytest.raises(NotFoundError, match="cart-not-found: there is no such cart for you"):
            shopper.demand(kind, found)
    with pytest.raises(NotFoundError, match="shipping-method-not-found: there is no such shipping method for you"):
        shopper.demand(ShippingMethod, deleted)
