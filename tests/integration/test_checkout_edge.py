"""Checkouts as clients meet them: what waiting costs, what each may do, and what an answer gives away."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import orjson
import pytest

from libs.common.auth import CLIENT, GUEST, SHOPPER
from libs.common.contracts.payments import PaymentActionRequired, PaymentVoided
from tests.integration.shop import Shop, frozen, process, shop_at
from tests.shared.callers import Person, message, onboard, problem, shell_of
from tests.shared.events import payment_authorized, payment_captured
from tests.shared.places import Places


@pytest.fixture
async def shop(shared: Places) -> AsyncIterator[Shop]:
    async with shop_at(shared("checkout")) as shop:
        yield shop


# Waiting.


async def test_a_wait_of_five_seconds_costs_not_one_statement_until_there_is_news(shop: Shop) -> None:
    checkout = await shop.paying()
    waiting = asyncio.create_task(shop.ask("GET", f"/v1/checkouts/{checkout.id}", headers={"Prefer": "wait=30"}))
    before = await shop.until_someone_waits()
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
    await shop.until_someone_waits()
    async with shell_of(shared("checkout")) as doomed:  # its hints are never sent
        await doomed.execute(message(payment_authorized(checkout), shop.tenant_id))
    await shop.until_someone_waits()
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
    await shop.until_someone_waits()
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
    await shop.until_someone_waits()
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


@pytest.mark.parametrize(
    "payment", [{}, {"method": "pm_card_visa", "confirmation": "client"}, {"confirmation": "server"}, {"method": ""}]
)
async def test_a_payment_is_a_method_or_confirmed_by_the_payer_and_nothing_else(shop: Shop, payment: dict[str, str]) -> None:
    assert (await shop.start(payment=payment)).status_code == 422


@pytest.mark.parametrize(
    "method", ["4242424242424242", "tok_visa", "src_1abc", "card_1abc", "pm_", "pm_a b", "pm_\uff14", "visa"]
)
async def test_a_method_is_one_that_the_provider_names_so_and_nothing_else_is_kept(shop: Shop, method: str) -> None:
    refused = await shop.start(payment={"method": method})
    assert (refused.status_code, problem(refused)["errors"][0]["pointer"]) == (422, "/payment/method")


async def test_a_guest_s_token_says_so_and_a_guest_pays_at_once(shop: Shop) -> None:
    guest = Person(shop.tenant_id, claims={"roles": [SHOPPER, GUEST]}).authorization
    body = {"cart_id": str(uuid4()), "payment": {"confirmation": "later"}}
    for headers, status in ((guest, 422), (Person(shop.tenant_id).authorization, 202)):
        started = await shop.client.post("/v1/checkouts", json=body, headers={**headers, "Idempotency-Key": "k"})
        assert started.status_code == status, started.text
        assert status == 202 or problem(started)["code"] == "pay-later-refused"


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
    await shop.until_someone_waits()
    await shop.ask("POST", f"/v1/checkouts/{checkout.id}/cancel")
    await shop.until_someone_waits()
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
    before = await shop.until_someone_waits()
    await asyncio.sleep(2)
    assert len(shop.statements) == before
    await shop.tell(payment_authorized(checkout))
    assert _told(await watching)[-1][1] == "confirmed"
