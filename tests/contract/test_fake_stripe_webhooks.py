"""The fake's events and webhooks: signed as Stripe signs them, sent until answered, lost and doubled only as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import stripe
from aiohttp import web
from stripe.params import WebhookEndpointCreateParams

from deploy.local.fake_stripe import intents
from deploy.local.fake_stripe.books import Books
from deploy.local.fake_stripe.cards import CARDS
from deploy.local.fake_stripe.endpoints.call import new_id
from deploy.local.fake_stripe.idempotency import LIFETIME_SECONDS
from deploy.local.fake_stripe.listing import Window
from deploy.local.fake_stripe.records import Change, Status, WebhookEndpoint
from tests.shared.fakes import BASIC, INTENTS, VISA, Account, Process, account_at, control, intent_of

SECRET = "whsec_aSecretOfTheTests"
HELD = "payment_intent.amount_capturable_updated"


@dataclass
class Receiver:
    """A server that answers as it is told and remembers what it was sent."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[str, dict[str, Any], dict[str, str], bytes]] = field(default_factory=list)
    hangs: bool = False

    def types(self, path: str = "") -> list[str]:
        return [event["type"] for at, event, _, _ in self.got if path in at]

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not reached():
                await asyncio.sleep(0.02)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiving = Receiver()

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        receiving.got.append((request.raw_path, await request.json(), dict(request.headers), body))
        if receiving.hangs:
            await asyncio.sleep(30)
        status = receiving.answers.pop(0) if receiving.answers else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    app = web.Application()
    app.router.add_post("/{path:.*}", receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiving.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield receiving
    await runner.cleanup()


async def subscribe(account: Account, receiver: Receiver, *kinds: str, template: str = "", **more: Any) -> dict[str, Any]:
    """Send this account's events to the receiver, impatiently."""
    body = {"api_key": account.api_key, "secret": SECRET, "url": receiver.url + template, "enabled_events": list(kinds)}
    shown: dict[str, Any] = await control(account, "PUT", "webhooks", body | {"first_retry_ms": 20} | more)
    return next(row for row in shown["endpoints"] if row["url"] == receiver.url + template)


@pytest.fixture
async def told(account: Account) -> AsyncIterator[Account]:
    """An account whose endpoints go when the test does, and the patience with them."""
    yield account
    await control(account, "DELETE", "webhooks", {"api_key": account.api_key})
    await control(account, "PUT", "webhooks", {"timeout_ms": 10_000, "first_retry_ms": 1000})


async def hold(account: Account, **form: str) -> str:
    held = await account.create(confirm="true", payment_method=VISA, **form)
    found: str = held.json["id"]
    return found


async def test_an_event_is_signed_so_that_the_sdk_believes_it_and_a_changed_one_not(told: Account, receiver: Receiver) -> None:
    await subscribe(told, receiver, HELD)
    intent = await hold(told, **{"metadata[order]": "o1"})
    await receiver.until(lambda: bool(receiver.got))

    _, event, headers, body = receiver.got[0]
    signed = stripe.Webhook.construct_event(body, headers["Stripe-Signature"], SECRET)
    assert (signed.id, signed.type, signed.data.object["id"]) == (event["id"], HELD, intent)
    assert event["data"]["object"]["amount_capturable"] == 1250
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body + b" ", headers["Stripe-Signature"], SECRET)
    listed = (await told.ask("GET", "/v1/events", {"type": "payment_intent.*"})).json["data"]
    assert [row["type"] for row in listed] == [HELD, "payment_intent.created"]
    assert (await told.ask("GET", f"/v1/events/{event['id']}")).json["data"] == event["data"]


async def test_while_a_secret_rolls_both_sign(told: Account, receiver: Receiver) -> None:
    endpoint = await subscribe(told, receiver, HELD)
    rolled = await control(told, "POST", f"webhook_endpoints/{endpoint['id']}/roll", {"expires_in_seconds": 60})
    await hold(told)
    await receiver.until(lambda: bool(receiver.got))
    _, _, headers, body = receiver.got[0]
    assert headers["Stripe-Signature"].count("v1=") == 2
    for secret in (SECRET, rolled["secret"]):
        stripe.Webhook.construct_event(body, headers["Stripe-Signature"], secret)


@pytest.mark.parametrize("refusals", [[500, 404], [302, 302]])
async def test_whatever_is_not_2xx_is_sent_again_until_it_is(told: Account, receiver: Receiver, refusals: list[int]) -> None:
    receiver.answers = list(refusals)
    await subscribe(told, receiver, HELD)
    await hold(told)
    await receiver.until(lambda: len(receiver.got) == 3)
    assert len({event["id"] for _, event, _, _ in receiver.got}) == 1
    assert {path for path, *_ in receiver.got} == {"/"}
    await asyncio.sleep(0.2)
    assert len(receiver.got) == 3


async def test_a_receiver_that_hangs_holds_up_no_request_and_is_asked_again(told: Account, receiver: Receiver) -> None:
    receiver.hangs = True
    await subscribe(told, receiver, HELD, timeout_ms=100)
    for _ in range(3):
        await asyncio.wait_for(hold(told), 20)
    await receiver.until(lambda: len(receiver.got) >= 6)
    receiver.hangs = False
    before = len(receiver.got)
    await receiver.until(lambda: len({event["id"] for _, event, _, _ in receiver.got[before:]}) == 3)


async def test_a_template_sends_each_event_to_the_tenant_of_its_payment(told: Account, receiver: Receiver) -> None:
    await subscribe(told, receiver, "*", template="/v1/webhooks/stripe/{tenant_id}")
    mine = await hold(told, **{"metadata[tenant_id]": "t1"})
    await hold(told)  # of no tenant: there is nowhere to send it
    await hold(told, **{"metadata[tenant_id]": "../t2"})
    await told.ask("POST", f"{INTENTS}/{mine}/capture")
    await told.ask("POST", "/v1/refunds", {"payment_intent": mine})
    await receiver.until(lambda: "charge.refunded" in receiver.types() and "refund.created" in receiver.types())
    assert {path for path, *_ in receiver.got} == {"/v1/webhooks/stripe/t1", "/v1/webhooks/stripe/..%2Ft2"}
    assert set(receiver.types("/t1")) >= {"payment_intent.succeeded", "charge.captured", "charge.refunded", "refund.created"}


async def test_losses_doubles_and_shuffles_are_the_ones_a_plan_asks_for(told: Account, receiver: Receiver) -> None:
    """Each by its own seed, so that a test that fails can be run again."""
    await subscribe(told, receiver, "payment_intent.created")
    match = {"event": "payment_intent.*", "metadata": {"order": told.api_key}}
    await told.faults(
        {"match": match, "fault": "webhook_loss", "times": 5},
        {"match": match, "fault": "webhook_duplicate", "probability": 0.5, "seed": 3},
        {"match": match, "fault": "webhook_reorder", "delay_ms": 300, "seed": 4},
    )
    made = [(await told.create(**{"metadata[order]": told.api_key})).json["id"] for _ in range(20)]
    plan = await control(told, "GET", "faults")
    lost, doubled, shuffled = (rule["struck"] for rule in plan["rules"])
    assert (lost, shuffled) == (5, 20)
    await receiver.until(lambda: len({e["data"]["object"]["id"] for _, e, _, _ in receiver.got}) == 15 < len(receiver.got))
    await asyncio.sleep(0.5)
    seen = [event["data"]["object"]["id"] for _, event, _, _ in receiver.got]
    assert set(seen) == set(made[5:])
    assert 15 < len(seen) <= 15 + doubled  # the double of a lost event is lost with it
    first_seen = list(dict.fromkeys(seen))
    assert first_seen != made[5:]


async def test_what_was_not_delivered_before_a_kill_is_delivered_after_it(
    start: Callable[[Path], Process], tmp_path: Path, receiver: Receiver
) -> None:
    running = start(tmp_path / "journal")
    receiver.answers = [500] * 10_000
    api_key = "sk_test_killed"
    async with account_at(running.url, api_key) as account:
        await subscribe(account, receiver, HELD, first_retry_ms=60_000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.gather(*(hold(account) for _ in range(20)))
        await receiver.until(lambda: len(receiver.got) == 20)
    running.kill()
    receiver.answers.clear()
    before = {event["id"] for _, event, _, _ in receiver.got}
    receiver.got.clear()

    running = start(running.state)
    await receiver.until(lambda: len(receiver.got) >= 20)
    assert {event["id"] for _, event, _, _ in receiver.got} == before
    for _, _, headers, body in receiver.got:
        stripe.Webhook.construct_event(body, headers["Stripe-Signature"], SECRET)
    async with account_at(running.url, api_key) as account:

        async def pending() -> int:
            count: int = (await control(account, "GET", "webhooks"))["pending"]
            return count

        await _until_zero(pending)
    running.kill()
    receiver.got.clear()
    start(running.state)
    await asyncio.sleep(1)
    assert receiver.got == []


async def _until_zero(count: Callable[[], Awaitable[int]]) -> None:
    async with asyncio.timeout(10):
        while await count():
            await asyncio.sleep(0.05)


async def test_an_event_can_be_sent_again_by_hand(told: Account, receiver: Receiver) -> None:
    await subscribe(told, receiver, HELD)
    await hold(told)
    await receiver.until(lambda: len(receiver.got) == 1)
    await control(told, "POST", f"events/{receiver.got[0][1]['id']}/resend")
    await receiver.until(lambda: len(receiver.got) == 2)
    assert receiver.got[0][1]["id"] == receiver.got[1][1]["id"]


async def test_endpoints_are_made_changed_and_deleted_and_show_their_secret_once(account: Account, receiver: Receiver) -> None:
    endpoints = account.sdk.webhook_endpoints
    made = await endpoints.create_async({"url": receiver.url + "/a", "enabled_events": ["payment_intent.created"]})
    assert made.secret is not None
    await account.create()
    await receiver.until(lambda: len(receiver.got) == 1)
    _, _, headers, body = receiver.got[0]
    stripe.Webhook.construct_event(body, headers["Stripe-Signature"], made.secret)

    read = await endpoints.retrieve_async(made.id)
    assert (read.status, getattr(read, "secret", None)) == ("enabled", None)
    await endpoints.update_async(made.id, {"disabled": True})
    await account.create()
    await endpoints.update_async(made.id, {"disabled": False, "url": receiver.url + "/b"})
    await account.create()
    await receiver.until(lambda: len(receiver.got) == 2)
    assert receiver.got[1][0] == "/b"
    assert [row.id for row in (await endpoints.list_async()).data] == [made.id]
    assert (await endpoints.delete_async(made.id)).deleted
    assert (await endpoints.list_async()).data == []


async def test_a_platforms_endpoint_for_connected_accounts_is_told_of_them_and_of_nothing_else(
    account: Account, receiver: Receiver
) -> None:
    connected, alone = f"acct_{new_id('c')}", f"acct_{new_id('c')}"
    endpoints = account.sdk.webhook_endpoints
    for path, connect in (("/connect", True), ("/own", False)):
        await endpoints.create_async(
            {"url": receiver.url + path, "enabled_events": ["payment_intent.created"], "connect": connect}
        )
    own = await account.create()
    of = {name: await account.ask("POST", INTENTS, BASIC, headers={"Stripe-Account": name}) for name in (connected, alone)}
    await receiver.until(lambda: len(receiver.got) == 3)
    got = {(path, event.get("account"), event["data"]["object"]["id"]) for path, event, _, _ in receiver.got}
    assert got == {("/own", None, own.json["id"]), *(("/connect", name, made.json["id"]) for name, made in of.items())}
    by_hand = next(event["id"] for path, event, _, _ in receiver.got if path == "/connect")
    await control(account, "POST", f"events/{by_hand}/resend")
    await receiver.until(lambda: len(receiver.got) == 4)
    assert receiver.got[-1][0] == "/connect"


async def test_an_account_has_sixteen_endpoints_at_most(account: Account) -> None:
    endpoints = account.sdk.webhook_endpoints
    wanted: WebhookEndpointCreateParams = {"url": "http://127.0.0.1:9/", "enabled_events": ["*"]}
    made = [await endpoints.create_async(wanted) for _ in range(16)]
    with pytest.raises(stripe.InvalidRequestError, match="maximum of 16"):
        await endpoints.create_async(wanted)
    await endpoints.delete_async(made[3].id)
    assert (await endpoints.create_async(wanted)).status == "enabled"


def test_who_is_to_be_told_of_what_outlives_a_restart_and_a_day(tmp_path: Path) -> None:
    """What is owed is kept however old it is; what was delivered is not owed again."""
    path, endpoint = tmp_path / "state", WebhookEndpoint("we_1", "http://x/", ("whsec_1",), ("*",), 1)
    books = Books(path)
    account = books.account("sk_test_x")
    books.record(account, Change(endpoint=endpoint), None, at=1)
    asked = intent_of("pi_1", created=2, status=Status.REQUIRES_CONFIRMATION)
    books.record(account, Change(asked, events=("payment_intent.created",)), None, at=2)
    held = intents.confirm(asked, CARDS[VISA], intents.Occasion(now=3, new_id=new_id))
    books.record(account, held, None, at=3)
    owed = dict(books.owed)
    delivered = next(key for key, each in owed.items() if each.event.type == "charge.succeeded")
    books.settle(owed.pop(delivered))
    books.close()
    for _ in range(3):
        books = Books(path)
        assert {key: each.event for key, each in books.owed.items()} == {key: each.event for key, each in owed.items()}
        account = books.account("sk_test_x")
        assert account.owed_count == Counter(event_id for event_id, _ in owed)
        assert account.intents.get("pi_1").status == "requires_capture"
        assert books.due_at() == 3 + intents.HOLD_SECONDS
        books.tidy(3 + 2 * LIFETIME_SECONDS)
        books.close()
    books = Books(path)
    for each in list(books.owed.values()):
        books.settle(each)
    books.tidy(3 + 2 * LIFETIME_SECONDS)
    books.close()
    books = Books(path)
    assert books.owed == {}
    assert books.account("sk_test_x").events.page(Window()).ids == []
    books.close()
