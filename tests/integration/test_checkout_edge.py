"""Checkouts and orders as clients meet them: what waiting costs, what each may do, and what an answer gives away."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
import pytest

from libs.common.auth import CLIENT, Keys, Verifier
from libs.common.contracts.cart import CartFrozen, Discount
from libs.common.contracts.payments import (
    PaymentActionRequired,
    PaymentVoided,
    RefundFailed,
    RefundSucceeded,
)
from libs.common.database import Database
from libs.common.errors import ConflictError
from libs.common.http.routes import Service
from libs.common.messaging.hints import Hints
from libs.common.messaging.shell import Shell
from libs.common.messaging.timers import fire_due
from libs.common.processes.api import api_app
from libs.common.shared import Shared
from services.checkout import repository
from services.checkout.api import ROUTES
from services.checkout.api.lookups import PER_ADDRESS
from services.checkout.app import PARTS
from services.checkout.domain.refund import RefundWish
from services.checkout.domain.saga import Checkout, Terms
from services.checkout.handlers import Caller
from services.checkout.handlers.refunds import RequestRefund
from services.checkout.jobs.clockwork import COMMANDS
from tests.shared.callers import ISSUER, JWK, Person, count, message, onboard, problem, shell_of
from tests.shared.events import cart_frozen_for, frozen_line, payment_authorized, payment_captured
from tests.shared.places import Place, Places

PRICE = 250


@asynccontextmanager
async def process(place: Place) -> AsyncIterator[tuple[Shell, Hints, list[str]]]:
    """What one process has: a pool, of one connection here, whose statements are written down, and hints of its own."""
    database = await Database.connect(place.url("app"), application="test", size=1)
    statements: list[str] = []
    async with database.acquire() as connection:
        connection.add_query_logger(lambda record: statements.append(record.query))
    hints = Hints(place.url("app"))
    await hints.start()
    try:
        yield (
            PARTS.shell(database, hints, "api"),
            hints,
            statements,
        )
    finally:
        await hints.close()
        await database.close()


@dataclass
class Shop:
    """The checkout service's API, its worker's shell, and a tenant with tea to sell."""

    client: httpx.AsyncClient
    worker: Shell
    tenant_id: UUID
    statements: list[str]
    shopper: Person
    staff: Person
    keys: int = field(default=0)

    async def ask(self, method: str, path: str, who: Person | None = None, **request: Any) -> httpx.Response:
        self.keys += 1
        headers = {"Idempotency-Key": f"key-{self.keys}", **(who or self.shopper).authorization, **request.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **request)

    async def start(self, wait: int = 0, **request: Any) -> httpx.Response:
        body = {"cart_id": str(uuid4()), "payment": {"method": "m"}, **request}
        return await self.ask("POST", "/v1/checkouts", json=body, headers={"Prefer": f"wait={wait}"})

    async def tell(self, *events: Any) -> None:
        for event in events:
            await self.worker.execute(message(event, self.tenant_id))

    async def checkout(self, checkout_id: str) -> Checkout:
        async with self.worker.database.transaction([self.tenant_id]) as connection:
            [found] = await repository.CHECKOUTS.load(connection, [(self.tenant_id, UUID(checkout_id))], lock=False)
        return found

    async def paying(self, **request: Any) -> Checkout:
        started = await self.checkout((await self.start(**request)).json()["id"])
        await self.tell(frozen(started, 2))
        return await self.checkout(str(started.id))

    async def ordered(self, *, is_captured: bool = True, **request: Any) -> Checkout:
        checkout = await self.paying(**request)
        await self.tell(payment_authorized(checkout), *([payment_captured(checkout)] if is_captured else []))
        return checkout


def frozen(checkout: Checkout, quantity: int) -> CartFrozen:
    return cart_frozen_for(checkout, frozen_line("tea", quantity, PRICE, name="Tea"))


@pytest.fixture
async def shop(shared: Places) -> AsyncIterator[Shop]:
    place = shared("checkout")
    keys = Keys("http://127.0.0.1:9/nobody-answers-here")
    keys.learn(JWK)
    async with process(place) as (shell, hints, statements), process(place) as (worker, _, _):
        app = api_app("checkout", ROUTES)
        app.state.keys = keys
        app.state.service = Service("checkout", shell, hints, Verifier(keys, issuer=ISSUER, audience="checkout"))
        app.state.service.shared = Shared(Terms(ttl_seconds=900))
        tenant_id = await onboard(worker)
        await count(worker, tenant_id, "tea", 1_000)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test", timeout=60) as client:
            yield Shop(client, worker, tenant_id, statements, Person(tenant_id), Person(tenant_id, role=CLIENT))


async def _quiet(statements: list[str]) -> int:
    """How many statements there were once there are no more."""
    seen = -1
    while seen != len(statements):
        seen = len(statements)
        await asyncio.sleep(0.5)
    return seen


# Waiting.


async def test_a_wait_of_five_seconds_costs_not_one_statement_until_there_is_news(shop: Shop) -> None:
    checkout = await shop.paying()
    waiting = asyncio.create_task(shop.ask("GET", f"/v1/checkouts/{checkout.id}", headers={"Prefer": "wait=30"}))
    before = await _quiet(shop.statements)
    await asyncio.sleep(5)
    assert len(shop.statements) == before
    assert not waiting.done()
    await shop.tell(payment_authorized(checkout))
    assert (await waiting).json()["state"] == "confirmed"
    assert sum("FROM" in statement for statement in shop.statements[before:]) == 1, "it looked once"


async def test_a_wait_whose_news_died_with_a_worker_hears_from_the_next_one_before_its_time_is_over(
    shop: Shop, shared: Places
) -> None:
    checkout, began = await shop.paying(), asyncio.get_running_loop().time()
    waiting = asyncio.create_task(shop.ask("GET", f"/v1/checkouts/{checkout.id}", headers={"Prefer": "wait=30"}))
    await _quiet(shop.statements)
    async with shell_of(shared("checkout")) as doomed:  # its hints are never sent
        await doomed.execute(message(payment_authorized(checkout), shop.tenant_id))
    await _quiet(shop.statements)
    assert not waiting.done()
    async with process(shared("checkout")) as (_, successor, _):
        successor.call_everyone()
        assert (await waiting).json()["state"] == "confirmed"
    assert asyncio.get_running_loop().time() - began < 30, "not only when it looked for the last time"


async def test_who_has_the_newest_version_is_told_so_and_not_sent_it_again(shop: Shop) -> None:
    checkout = await shop.ordered()
    for path in (f"/v1/checkouts/{checkout.id}", f"/v1/orders/{checkout.order_id}"):
        first = await shop.ask("GET", path)
        for known in (first.headers["etag"], f'"0", W/{first.headers["etag"]}', "*"):
            again = await shop.ask("GET", path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert (await shop.ask("GET", path, headers={"If-None-Match": '"0"'})).content == first.content
        stranger = {"If-None-Match": "*", **Person(shop.tenant_id).authorization}
        assert (await shop.ask("GET", path, headers=stranger)).status_code == 404
    tag = (await shop.ask("GET", f"/v1/orders/{checkout.order_id}")).headers["etag"]
    await shop.ask("POST", f"/v1/orders/{checkout.order_id}/refunds", shop.staff, json={"reason": "r", "amount_minor": 1})
    changed = await shop.ask("GET", f"/v1/orders/{checkout.order_id}", headers={"If-None-Match": tag})
    assert (changed.status_code, len(changed.json()["refunds"])) == (200, 1)


async def test_a_wait_that_ends_without_news_looks_once_more_and_says_that_it_is_not_over(shop: Shop) -> None:
    started = await shop.start(wait=1)
    assert (started.status_code, started.json()["state"], started.headers["preference-applied"]) == (202, "started", "wait=1")


async def test_who_starts_a_checkout_learns_at_once_that_the_payer_must_act_and_then_waits_for_the_end(shop: Shop) -> None:
    cart_id = str(uuid4())
    waiting = asyncio.create_task(shop.start(wait=30, cart_id=cart_id))
    first = await shop.start(cart_id=cart_id)
    started = await shop.checkout(first.json()["id"])
    await shop.tell(frozen(started, 1), PaymentActionRequired(payment_id=started.payment_id, checkout_id=started.id))
    answer = await waiting
    assert (answer.status_code, answer.json()["state"], answer.json()["action_required"]) == (202, "paying", True)
    resumed = asyncio.create_task(
        shop.ask("POST", f"/v1/checkouts/{started.id}/resume", headers={"Prefer": "wait=30", "Idempotency-Key": "resume"})
    )
    await _quiet(shop.statements)
    assert not resumed.done()
    await shop.tell(payment_authorized(await shop.checkout(str(started.id))))
    answer = await resumed
    assert (answer.status_code, answer.json()["state"], answer.json()["action_required"]) == (200, "confirmed", False)
    again = await shop.ask("POST", f"/v1/checkouts/{started.id}/resume", headers={"Idempotency-Key": "resume"})
    assert (again.status_code, again.json(), again.headers["idempotent-replayed"]) == (200, answer.json(), "true")
    late = await shop.ask("POST", f"/v1/checkouts/{started.id}/resume")
    assert (late.status_code, problem(late)["code"], problem(late)["state"]) == (409, "checkout-final", "confirmed")


# Canceling.


async def test_a_checkout_is_canceled_by_its_shopper_once_payments_has_let_go(shop: Shop) -> None:
    checkout = await shop.paying()
    path = f"/v1/checkouts/{checkout.id}/cancel"
    assert (await shop.ask("POST", path, Person(shop.tenant_id))).status_code == 404
    assert (await shop.client.post(path, headers=shop.shopper.authorization)).status_code == 400, "it needs a key"
    waiting = asyncio.create_task(shop.ask("POST", path, headers={"Prefer": "wait=30", "Idempotency-Key": "cancel"}))
    await _quiet(shop.statements)
    assert (await shop.ask("POST", path)).json()["state"] == "canceling"
    await shop.tell(PaymentVoided(payment_id=checkout.payment_id, checkout_id=checkout.id))
    answer = await waiting
    assert (answer.status_code, answer.json()["state"], answer.json()["reason"]) == (200, "canceled", "canceled")
    again = await shop.ask("POST", path, headers={"Idempotency-Key": "cancel"})
    assert (again.status_code, again.content, again.headers["etag"]) == (200, answer.content, answer.headers["etag"])
    refused = problem(await shop.ask("POST", path))
    assert (refused["status"], refused["code"], refused["checkout_id"]) == (409, "checkout-final", str(checkout.id))


async def test_money_that_comes_late_leaves_the_answer_of_a_finished_checkout_as_it_was_to_the_bit(shop: Shop) -> None:
    checkout = await shop.paying()
    await shop.ask("POST", f"/v1/checkouts/{checkout.id}/cancel")
    await shop.tell(PaymentVoided(payment_id=checkout.payment_id, checkout_id=checkout.id))
    before = await shop.ask("GET", f"/v1/checkouts/{checkout.id}")
    await shop.tell(payment_authorized(checkout), payment_captured(checkout))
    after = await shop.ask("GET", f"/v1/checkouts/{checkout.id}")
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])


async def test_what_is_not_the_callers_is_absent_before_anything_is_said_of_the_request(shop: Shop) -> None:
    checkout = await shop.ordered()
    stranger, wrong = Person(await onboard(shop.worker), role=CLIENT), {"nonsense": 1}
    order, resume = f"/v1/orders/{checkout.order_id}", f"/v1/checkouts/{checkout.id}/resume"
    for path in (f"{order}/refunds", f"{order}/notes", resume):
        assert problem(await shop.ask("POST", path, stranger, json=wrong))["status"] == 404, path
        assert problem(await shop.ask("POST", path, shop.staff, json=wrong))["status"] == 422, path
    lines = [{"line_id": "1", "quantity": 9}, {"line_id": "9", "quantity": 1}]
    refused = problem(await shop.ask("POST", f"{order}/refunds", shop.staff, json={"lines": lines, "reason": "x"}))
    assert (refused["status"], refused["code"]) == (422, "unknown-line"), "a rule goes before the state"


async def test_endless_numbers_in_headers_do_no_harm(shop: Shop) -> None:
    path, endless = f"/v1/checkouts/{(await shop.ordered()).id}", "9" * 5_000
    answer = await shop.ask("GET", path, headers={"Prefer": f"wait={endless}"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=30")
    answer = await shop.ask("GET", f"{path}/events", headers={"Last-Event-ID": endless})
    assert (answer.status_code, "event: confirmed" in answer.text) == (200, True)


@pytest.mark.parametrize("payment", [{}, {"method": "m", "confirmation": "client"}, {"confirmation": "server"}, {"method": ""}])
async def test_a_payment_is_a_method_or_confirmed_by_the_payer_and_nothing_else(shop: Shop, payment: dict[str, str]) -> None:
    assert (await shop.start(payment=payment)).status_code == 422


async def test_a_payer_may_confirm_in_their_own_browser(shop: Shop) -> None:
    checkout = await shop.paying(payment={"confirmation": "client"})
    assert (checkout.method, checkout.confirmation) == ("", "client")


# Steps as they happen.


def _told(stream: httpx.Response) -> list[tuple[int, str, str]]:
    """Each event of a stream: its id, its name, and the state of the checkout in it."""
    found = []
    for block in stream.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in lines:
            found.append((int(lines["id"]), lines["event"], orjson.loads(lines["data"])["state"]))
    return found


async def test_the_steps_of_a_checkout_are_told_as_they_happen_each_with_an_id_to_come_back_with(shop: Shop) -> None:
    checkout = await shop.paying()
    path = f"/v1/checkouts/{checkout.id}/events"
    watching = asyncio.create_task(shop.ask("GET", path))
    await _quiet(shop.statements)
    await shop.ask("POST", f"/v1/checkouts/{checkout.id}/cancel")
    await _quiet(shop.statements)
    await shop.tell(PaymentVoided(payment_id=checkout.payment_id, checkout_id=checkout.id))
    stream = await watching
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert [name for _, name, _ in _told(stream)] == ["paying", "canceling", "canceled"]
    assert all(name == state for _, name, state in _told(stream))
    ids = [number for number, _, _ in _told(stream)]
    assert ids == sorted(set(ids))
    back = await shop.ask("GET", path, headers={"Last-Event-ID": str(ids[0])})
    assert [name for _, name, _ in _told(back)] == ["canceled"]
    assert (await shop.ask("GET", path, headers={"Last-Event-ID": str(ids[-1])})).status_code == 204
    assert (await shop.ask("GET", path, Person(shop.tenant_id))).status_code == 404


async def test_a_reader_of_steps_costs_no_statement_until_there_is_one(shop: Shop) -> None:
    checkout = await shop.paying()
    watching = asyncio.create_task(shop.ask("GET", f"/v1/checkouts/{checkout.id}/events"))
    before = await _quiet(shop.statements)
    await asyncio.sleep(2)
    assert len(shop.statements) == before
    await shop.tell(payment_authorized(checkout))
    assert _told(await watching)[-1][1] == "confirmed"


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
    caller = Caller(subject_id=shop.staff.subject, sees_all=True)

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
        (shop.tenant_id, number, "buyer@EXAMPLE.org"),
        (shop.tenant_id, number, "somebody@example.org"),
        (shop.tenant_id, number + 999, "buyer@example.org"),
        (uuid4(), number, "buyer@example.org"),
    ]
    seen = []
    for tenant_id, given, email in asked:
        before = await _quiet(shop.statements)
        body = {"tenant_id": str(tenant_id), "number": given, "email": email}
        answer = await shop.client.post("/v1/order-lookups", json=body)
        headers = {name for name in answer.headers if name != "x-request-id"}
        seen.append((answer.status_code, answer.content, headers, [sql.split("'")[0] for sql in shop.statements[before:]]))
    assert all(each == seen[0] for each in seen), "not even the statements differ"
    assert seen[0][0] == 202
    while await fire_due(shop.worker, COMMANDS):
        pass
    assert await _links(shared("checkout"), shop.tenant_id) == [str(checkout.order_id)]


async def test_lookups_of_one_address_are_rationed_and_the_refusal_says_when_to_come_back(shop: Shop) -> None:
    body = {"tenant_id": str(shop.tenant_id), "number": 1, "email": "often@example.org"}
    answers = [await shop.client.post("/v1/order-lookups", json=body) for _ in range(PER_ADDRESS + 1)]
    assert [answer.status_code for answer in answers] == [202] * PER_ADDRESS + [429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert (await shop.client.post("/v1/order-lookups", json={**body, "email": "seldom@example.org"})).status_code == 202
