"""What a restored database lacks: each thing is named once, and nothing that it has."""

from collections.abc import Mapping
from uuid import UUID

from deploy.cli.gaps import Known, Told, gaps, tenant_gaps, unexplained
from tests.unit.deploy.shop import Shop, id_of


def _shop() -> Shop:
    """Three orders: one that is kept, one of which money went back, one that was canceled."""
    shop = Shop()
    for number, name in enumerate(("kept", "refunded", "canceled"), 1):
        shop.buy(name, number)
    shop.refund("refunded", 1, restock=True)
    shop.cancel("canceled", 2)
    return shop


def _order(name: str) -> UUID:
    return id_of(f"{name}/order")


def _known() -> dict[UUID, Known]:
    """The same, as databases have them that lack nothing."""
    return {
        _order("kept"): Known(is_canceled=False),
        _order("refunded"): Known(is_canceled=False, refund_ids=frozenset({id_of("refunded/refund")})),
        _order("canceled"): Known(is_canceled=True),
    }


def _found(shop: Shop, known: Mapping[UUID, Known], unknown: frozenset[UUID] = frozenset()) -> list[tuple[str, str]]:
    return [(gap.kind, gap.subject) for gap in gaps(shop.books().together(), known, unknown)]


def test_where_nothing_is_missing_nothing_is_said() -> None:
    assert _found(_shop(), _known()) == []
    assert unexplained(_shop().books().together()) == {}


def test_an_order_that_is_not_there_any_more_is_told_with_its_money_and_what_became_of_it() -> None:
    found = gaps(_shop().books().together(), {}, ())
    assert {(gap.kind, gap.subject) for gap in found} == {("order-lost", str(order_id)) for order_id in _known()}
    details = {gap.subject: gap.detail for gap in found}
    assert "number 1 of" in details[str(_order("kept"))]
    assert "5.00 GBP captured (pi_kept)" in details[str(_order("kept"))]
    assert "2.50 GBP given back" in details[str(_order("refunded"))]
    assert "canceled at" in details[str(_order("canceled"))]


def test_what_became_of_an_order_that_is_there_is_told() -> None:
    known = _known()
    known[_order("refunded")] = Known(is_canceled=False, refund_ids=frozenset())
    known[_order("canceled")] = Known(is_canceled=False)
    assert sorted(_found(_shop(), known)) == [
        ("cancel-lost", str(_order("canceled"))),
        ("refund-lost", str(_order("refunded"))),
    ]


def test_a_number_that_was_given_again_is_told_with_both() -> None:
    shop, known = _shop(), _known()
    shop.buy("again", 1)
    del known[_order("kept")]
    known[_order("again")] = Known(is_canceled=False)
    assert sorted(_found(shop, known)) == [("number-twice", "1"), ("order-lost", str(_order("kept")))]
    [twice] = [gap for gap in gaps(shop.books().together(), known, ()) if gap.kind == "number-twice"]
    assert f"{_order('kept')} (lost)" in twice.detail
    assert f"{_order('again')} (here)" in twice.detail


def test_money_for_a_checkout_that_is_not_known_is_told_and_that_for_one_under_way_is_not() -> None:
    shop = _shop()
    for name in ("forgotten", "under-way"):
        shop.charges.append(shop.charge(name, 0, "requires_capture"))
    assert {*unexplained(shop.books().together())} == {id_of("forgotten"), id_of("under-way")}
    assert _found(shop, _known(), frozenset({id_of("forgotten")})) == [("money-lost", "pi_forgotten")]


def test_a_tenant_is_told_that_is_forgotten_and_one_that_is_back() -> None:
    told = {
        id_of(name): Told(slug=name, version=5, status=status, is_erased=is_erased)
        for name, status, is_erased in (
            ("kept", "active", False),
            ("new", "active", False),
            ("erased", "erased", True),
            ("back", "erased", True),
            ("never-here", "erased", True),
        )
    }
    here = {id_of("kept"): "active", id_of("erased"): "erased", id_of("back"): "active"}
    assert [(gap.tenant, gap.kind) for gap in tenant_gaps(told, here)] == [("back", "tenant-back"), ("new", "tenant-lost")]
