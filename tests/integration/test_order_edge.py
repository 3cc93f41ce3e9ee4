"""Orders as clients meet them: what each may do, when money goes back, and what a lookup gives away."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from libs.common.auth import CLIENT
from libs.common.contracts.cart import Discount
from libs.common.contracts.payments import (
    RefundFailed,
    RefundSucceeded,
)
from libs.common.decision import Viewer
from libs.common.errors import ConflictError
from libs.common.messaging.shell import Shell
from libs.common.messaging.timers import fire_due
from services.checkout.api.lookups import PER_ADDRESS
from services.checkout.domain.refund import RefundWish
from services.checkout.handlers.refunds import RequestRefund
from services.checkout.jobs.clockwork import COMMANDS
from tests.integration.shop import PRICE, Shop, frozen, shop_at
from tests.shared.callers import Person, message, onboard, problem, shell_of
from tests.shared.places import Place, Places


@pytest.fixture
async def shop(shared: Places) -> AsyncIterator[Shop]:
    async with shop_at(shared("checkout")) as shop:
        yield shop


# Orders.


async def test_an_order_is_called_off_before_its_money_is_taken_and_refunded_after(shop: Shop) -> None:
    held, taken = await shop.ordered(is_captured=False), await shop.ordered()
    path = "/v1/orders/{}/{}"
    assert (await shop.ask("POST", path.format(held.order_id, "cancel"))).status_code == 403, "staff alone"
    canceled = await shop.ask("POST", path.format(held.order_id, "cancel"), shop.staff, headers={"Idempotency-Key": "off"})
    assert (canceled.status_code, canceled.json()["state"], canceled.json()["reason"]) == (202, "canceled", "canceled")
    again = await shop.ask("POST", path.format(held.order_id, "cancel"), shop.staff, headers={"Idempotency-Key": "off"})
    assert (again.status_code, again.json()) == (202, canceled.json())
    late = problem(await shop.ask("POST", path.format(taken.order_id, "cancel"), shop.staff))
    assert (late["status"], late["code"]) == (409, "order-captured")
    early = await shop.ask("POST", path.format(held.order_id, "refunds"), shop.staff, json={"reason": "r"})
    assert problem(early)["code"] == "order-not-captured"


async def test_what_costs_nothing_waits_for_its_buyer_if_asked_to_and_is_an_order_without_a_payment_then(shop: Shop) -> None:
    checkout = await shop.checkout((await shop.start(payment={"confirmation": "later"})).json()["id"])
    free = frozen(checkout, 2)
    await shop.tell(replace(free, discounts=(Discount(code="GIFT", amount_minor=2 * PRICE),), total_minor=0))
    path = f"/v1/checkouts/{checkout.id}"
    reserved = (await shop.ask("GET", path)).json()
    assert (reserved["state"], reserved["action_required"], reserved["total_minor"]) == ("reserved", True, 0)
    resumed = await shop.ask("POST", f"{path}/resume")
    assert (resumed.status_code, resumed.json()["state"], "payment_id" in resumed.json()) == (200, "confirmed", False)
    order = (await shop.ask("GET", f"/v1/orders/{checkout.order_id}")).json()
    assert (order["payment_state"], order["captured_minor"], "payment_id" in order) == ("captured", 0, False)
    refused = await shop.ask("POST", f"/v1/orders/{checkout.order_id}/refunds", shop.staff, json={"reason": "r"})
    assert (refused.status_code, problem(refused)["code"]) == (409, "order-not-captured")
    off = await shop.ask("POST", f"/v1/orders/{checkout.order_id}/cancel", shop.staff)
    assert (off.json()["state"], "payment_state" in off.json()) == ("canceled", False)
    stock = (await shop.ask("GET", "/v1/stock/tea", shop.staff)).json()
    assert (stock["on_hand"], stock["reserved"], stock["sold"]) == (1_000, 0, 0)


async def test_money_that_went_back_too_often_is_in_the_books_and_no_message_waits_for_an_explanation(shop: Shop) -> None:
    checkout = await shop.ordered()

    def told(kind: type[Any], refund_id: UUID, **facts: Any) -> Any:
        about = {"payment_id": checkout.payment_id, "checkout_id": checkout.id, "order_id": checkout.order_id}
        return kind(refund_id=refund_id, amount_minor=2 * PRICE, currency="GBP", refunded_minor=2 * PRICE, **about, **facts)

    first, second = uuid4(), uuid4()
    await shop.tell(told(RefundSucceeded, first), told(RefundSucceeded, second))
    order = (await shop.ask("GET", f"/v1/orders/{checkout.order_id}")).json()
    assert (order["payment_state"], order["refunded_minor"]) == ("refunded", 4 * PRICE)
    await shop.tell(told(RefundFailed, first, code="lost"))
    order = (await shop.ask("GET", f"/v1/orders/{checkout.order_id}")).json()
    assert (order["payment_state"], order["refunded_minor"]) == ("refunded", 2 * PRICE)
    await shop.tell(told(RefundFailed, second, code="lost"))
    order = (await shop.ask("GET", f"/v1/orders/{checkout.order_id}")).json()
    assert (order["payment_state"], order["refunded_minor"]) == ("captured", 0)


async def test_a_refund_is_asked_for_once_a_key_and_shows_on_its_order_as_it_goes(shop: Shop) -> None:
    checkout = await shop.ordered()
    path = f"/v1/orders/{checkout.order_id}/refunds"
    lines = [{"line_id": "1", "quantity": 1}]
    body = {"lines": lines, "restock": True, "reason": "broken"}
    assert (await shop.ask("POST", path, json=body)).status_code == 403
    first, again = [await shop.ask("POST", path, shop.staff, json=body, headers={"Idempotency-Key": "r"}) for _ in range(2)]
    refund = first.json()
    assert (first.status_code, refund["state"], refund["amount_minor"]) == (202, "requested", PRICE)
    assert (again.json(), again.headers["idempotent-replayed"]) == (refund, "true")
    assert first.headers["location"] == f"/v1/refunds/{refund['id']}"
    told = RefundSucceeded(
        refund_id=UUID(refund["id"]),
        payment_id=checkout.payment_id,
        checkout_id=checkout.id,
        order_id=checkout.order_id,
        amount_minor=PRICE,
        currency="GBP",
        refunded_minor=PRICE,
    )
    await shop.tell(told)
    order = (await shop.ask("GET", f"/v1/orders/{checkout.order_id}")).json()
    assert (order["payment_state"], order["refunded_minor"]) == ("partially_refunded", PRICE)
    assert [(each["id"], each["state"]) for each in order["refunds"]] == [(refund["id"], "succeeded")]
    assert (await shop.ask("GET", path)).json()["items"] == order["refunds"]
    replayed = await shop.ask("POST", path, shop.staff, json=body, headers={"Idempotency-Key": "r"})
    assert replayed.json()["state"] == "succeeded"
    other = {**body, "reason": "another"}
    assert (await shop.ask("POST", path, shop.staff, json=other, headers={"Idempotency-Key": "r"})).status_code == 422
    for wrong, status in (({"amount_minor": PRICE + 1}, 409), ({"lines": lines * 2}, 422), ({"amount_minor": 0}, 422)):
        assert (await shop.ask("POST", path, shop.staff, json={"reason": "r", **wrong})).status_code == status


async def test_fifty_refunds_at_once_never_come_to_more_than_was_taken(shop: Shop, shared: Places) -> None:
    checkout = await shop.ordered()
    wish = RefundWish(amount_minor=30, quantities={}, restock=False, reason="r")
    caller = Viewer(subject_id=shop.staff.subject, sees_all=True)

    async def refund(shell: Shell) -> str:
        command = RequestRefund(refund_id=uuid4(), order_id=checkout.order_id, caller=caller, wish=wish)
        try:
            await shell.execute(message(command, shop.tenant_id))
        except ConflictError as error:
            return error.code
        return "requested"

    async with shell_of(shared("checkout"), size=20) as shell:
        outcomes = Counter(await asyncio.gather(*(refund(shell) for _ in range(50))))
    assert outcomes == {"requested": 2 * PRICE // 30, "refund-exceeds-capture": 50 - 2 * PRICE // 30}


async def test_notes_are_written_and_read_by_staff_alone(shop: Shop) -> None:
    checkout = await shop.ordered()
    path = f"/v1/orders/{checkout.order_id}/notes"
    assert (await shop.ask("POST", path, json={"body": "x"})).status_code == 403
    written = await shop.ask("POST", path, shop.staff, json={"body": "called twice"})
    assert (written.status_code, written.json()["author"]) == (201, str(shop.staff.subject))
    assert (await shop.ask("GET", path, shop.staff)).json()["items"] == [written.json()]
    stranger = Person(await onboard(shop.worker), role=CLIENT)
    assert (await shop.ask("GET", path, stranger)).status_code == 404
    assert (await shop.ask("POST", path, stranger, json={"body": "x"})).status_code == 404


# Looking up.


async def _links(place: Place, tenant_id: UUID) -> list[str]:
    """The orders to which links were asked for, in this tenant."""
    admin: asyncpg.Connection = await place.as_admin()
    rows = await admin.fetch("SELECT payload FROM outbox_event WHERE tenant_id = $1 ORDER BY id", tenant_id)
    await admin.close()
    return [fact["order_id"] for row in rows if "lookup_id" in (fact := orjson.loads(row["payload"]))]


async def test_a_lookup_gives_nothing_away_by_its_answer_or_its_work_and_the_link_goes_to_the_buyer_alone(
    shop: Shop, shared: Places
) -> None:
    checkout = await shop.ordered(email="Buyer@example.org")
    number = (await shop.ask("GET", f"/v1/orders/{checkout.order_id}")).json()["number"]
    asked = [
        (shop.tenant_id, number + 998, "first@example.org"),  # what is new to a connection is committed by itself
        (shop.tenant_id, number, "buyer@EXAMPLE.org"),
        (shop.tenant_id, number, "somebody@example.org"),
        (shop.tenant_id, number + 999, "buyer@example.org"),
        (uuid4(), number, "buyer@example.org"),
    ]
    seen = []
    for tenant_id, given, email in asked:
        await asyncio.sleep(0)  # statements are written down by tasks
        before = len(shop.statements)
        body = {"tenant_id": str(tenant_id), "number": given, "email": email}
        answer = await shop.client.post("/v1/order-lookups", json=body)
        headers = {name for name in answer.headers if name != "x-request-id"}
        await asyncio.sleep(0)
        seen.append((answer.status_code, answer.content, headers, [sql.split("'")[0] for sql in shop.statements[before:]]))
    assert all(each == seen[1] for each in seen[1:]), "not even the statements differ"
    assert seen[1][0] == 202
    while await fire_due(shop.worker, COMMANDS):
        pass
    assert await _links(shared("checkout"), shop.tenant_id) == [str(checkout.order_id)]


async def test_lookups_of_one_address_are_rationed_and_the_refusal_says_when_to_come_back(shop: Shop) -> None:
    body = {"tenant_id": str(shop.tenant_id), "number": 1, "email": "often@example.org"}
    answers = [await shop.client.post("/v1/order-lookups", json=body) for _ in range(PER_ADDRESS + 1)]
    assert [answer.status_code for answer in answers] == [202] * PER_ADDRESS + [429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert (await shop.client.post("/v1/order-lookups", json={**body, "email": "seldom@example.org"})).status_code == 202
