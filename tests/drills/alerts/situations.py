"""What is broken on purpose, one after another, for each alert."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

import aiohttp

from deploy.cli.publisher import Fact
from deploy.cli.supply import supply
from deploy.cli.tenants import operator
from deploy.local.description import server_of
from libs.common.database.connections import MOST_WAITING
from services import SERVICES
from tests.drills.alerts.scene import CHALLENGED, Blanks, Scene, situation
from tests.shared.market import OFFERS, shop_at
from tests.shared.verbs import held_for_no_order, paid

LADDER_ENDS: Final = """UPDATE operation SET unknown_count = 7, due_at = now() + interval '6 hours'
WHERE payment_id = $1 AND state = 'unknown'"""


# --- Invariants ---------------------------------------------------------------------------------------------------


@situation(
    "broken-invariants",
    "CartwrightInvariantBroken",
    "CartwrightInvariantsHold",
    not_run={"--watch": "it has no end; the drill's own watcher is it"},
)
async def _a_purchase_is_charged_twice(scene: Scene) -> AsyncIterator[Blanks]:
    bought = await paid(scene.market, "twice")
    form = {
        "amount": "202",
        "currency": "gbp",
        "payment_method": "pm_card_visa",
        "confirm": "true",
        "metadata[tenant_id]": str(scene.market.shop.tenant_id),
        "metadata[checkout_id]": bought["id"],
        "payment_method_types[]": "card",
    }
    charge = await scene.at_provider("/v1/payment_intents", **form)
    yield {"acme": "alerts-fired", "ORDER": bought["order_id"]}
    await scene.at_provider("/v1/refunds", payment_intent=charge["id"])


@situation("", "CartwrightNobodyLooks")
async def _the_watcher_dies(scene: Scene) -> AsyncIterator[Blanks]:
    await scene.looks.kill()
    yield {}
    await scene.looks.start()


# --- Requests -----------------------------------------------------------------------------------------------------


@situation(
    "failing-requests",
    "CartwrightCheckoutAvailability",
    "CartwrightCartAvailability",
    "CartwrightNobodyServes",
    "CartwrightProcessUnheard",
)
async def _two_apis_are_gone(scene: Scene) -> AsyncIterator[Blanks]:
    gateway, token = scene.market.stack.description().gateway_url, await scene.market.shop.token()
    async with aiohttp.ClientSession(gateway, headers={"Authorization": f"Bearer {token}"}) as session:

        async def ask() -> None:
            for path in ("/v1/carts", "/v1/orders"):
                async with session.get(path) as answer:
                    await answer.read()

        async with scene.again_and_again(ask), scene.stopped("cart.api", "checkout.api"):
            yield {}


@situation("slow-requests", "CartwrightCartLatency")
async def _an_api_is_slow(scene: Scene) -> AsyncIterator[Blanks]:
    address, token = scene.market.api.stack.services["cart"].url, await scene.market.shop.token()
    async with aiohttp.ClientSession(address, headers={"Authorization": f"Bearer {token}"}) as session:

        async def ask() -> None:
            async with session.get("/v1/products") as answer:
                await answer.read()

        async def lock() -> None:
            async with scene.held("cart", "LOCK TABLE product IN ACCESS EXCLUSIVE MODE"):
                await asyncio.sleep(0.6)

        async with scene.again_and_again(ask), scene.again_and_again(lock):
            yield {}


@situation("", "CartwrightTooBusy")
async def _more_ask_than_are_got_through_with(scene: Scene) -> AsyncIterator[Blanks]:
    address, token = scene.market.api.stack.services["cart"].url, await scene.market.shop.token()
    crowd = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(address, connector=crowd, headers={"Authorization": f"Bearer {token}"}) as session:

        async def ask() -> None:
            async with session.get("/v1/products") as answer:
                await answer.read()

        async def all_ask() -> None:
            async with scene.held("cart", "LOCK TABLE product IN ACCESS EXCLUSIVE MODE"):
                everybody = asyncio.gather(*(ask() for _ in range(MOST_WAITING + 200)), return_exceptions=True)
                await asyncio.sleep(4)
            await everybody

        async with scene.again_and_again(all_ask):
            yield {}


@situation("security-log", "CartwrightCallersTurnedAway")
async def _somebody_makes_tokens(scene: Scene) -> AsyncIterator[Blanks]:
    address = scene.market.api.stack.services["cart"].url
    async with aiohttp.ClientSession(address, headers={"Authorization": "Bearer nonsense"}) as session:

        async def ask() -> None:
            async with session.get("/v1/carts") as answer:
                await answer.read()

        async with scene.again_and_again(ask):
            yield {}


@situation("strangers", "CartwrightStrangersRefused")
async def _somebody_speaks_no_http(scene: Scene) -> AsyncIterator[Blanks]:
    host, port = server_of(scene.market.api.stack.url("cart"))

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"EHLO shop\r\n\r\n")
        await reader.read()
        writer.close()

    async with scene.again_and_again(ask):
        yield {}


# --- Events -------------------------------------------------------------------------------------------------------


@situation("late-events", "CartwrightNobodyPublishes", "CartwrightLagUnknown")
async def _no_worker_runs(scene: Scene) -> AsyncIterator[Blanks]:
    async with scene.stopped(*(f"{service}.worker" for service in SERVICES)):
        yield {}


@situation("", "CartwrightRelayFreshness", "CartwrightEventsWait")
async def _the_broker_stands_still(scene: Scene) -> AsyncIterator[Blanks]:
    with scene.frozen("kafka"):
        await scene.begun("patient")
        yield {}


@situation("", "CartwrightInboxLag")
async def _a_consumer_cannot_decide(scene: Scene) -> AsyncIterator[Blanks]:
    tenant, price = scene.market.shop.tenant_id, {"currency": "GBP", "unit_minor": 900}
    facts = [
        Fact("catalog.v1", "price.changed", "/test/flood", tenant, f"FLOOD-{number % 50}", number, price)
        for number in range(1, 4_001)
    ]
    async with scene.held("cart", "LOCK TABLE inbox_position IN ACCESS EXCLUSIVE MODE"):
        await scene.publish(*facts)
        yield {}


@situation("parked-message", "CartwrightMessagesParked")
async def _a_delta_comes_too_early(scene: Scene) -> AsyncIterator[Blanks]:
    await scene.publish(scene.adjusted("EARLY", 7))
    token = await operator(scene.market.api).token()
    found: list[dict[str, Any]] = []

    async def parked() -> bool:
        told = (await scene.market.api.call("checkout", "GET", "/ops/parked-messages?state=parked", token=token)).body
        found[:] = told["items"]
        return bool(found)

    await scene.market.until(parked)
    yield {"ID": found[0]["id"]}
    counted = {"location": "shop", "quantity": 1}  # the page has it discarded, and then a count must say what is there
    await scene.publish(
        Fact("inventory.v1", "stock.counted", "/test/inventory", scene.market.shop.tenant_id, "EARLY", 8, counted)
    )


@situation("paused-source", "CartwrightSourcePaused")
async def _a_source_is_paused(scene: Scene) -> AsyncIterator[Blanks]:
    tenant = str(scene.market.shop.tenant_id)
    said = await scene.verb("sources", "pause", "/erp/acme", "--tenant", tenant, "--reason", "their export is wrong")
    assert said.code == 0, said.out
    yield {"acme": "acme", "TENANT_ID": tenant}


# --- Checkouts ----------------------------------------------------------------------------------------------------


@situation("", "CartwrightTimersLate")
async def _timers_do_not_fire(scene: Scene) -> AsyncIterator[Blanks]:
    checkout = await scene.begun("timeless", CHALLENGED, wait=20)
    async with scene.database("checkout") as database:
        hour_ago = "UPDATE timer SET due_at = now() - interval '1 hour', free_at = now() - interval '1 hour' WHERE key = $1"
        await database.execute(hour_ago, checkout["id"])
    async with scene.held("checkout", "LOCK TABLE timer IN SHARE MODE"):
        yield {"CHECKOUT": checkout["id"]}


@situation("stuck-checkout", "CartwrightCheckoutsOverdue")
async def _payments_does_not_let_go(scene: Scene) -> AsyncIterator[Blanks]:
    checkout = await scene.begun("waiting", CHALLENGED, wait=20)
    token = await scene.market.shop.token()
    async with scene.stopped("payments.worker"):
        path = f"/v1/checkouts/{checkout['id']}/cancel"
        await scene.market.api.call("checkout", "POST", path, token=token, key=str(uuid4()))
        yield {"CHECKOUT": checkout["id"]}


@situation("drops", "CartwrightQueueStands")
async def _a_queue_does_not_move(scene: Scene) -> AsyncIterator[Blanks]:
    api, token = scene.market.api, await scene.market.shop.token()
    terms = {"starts_at": "2099-01-01T00:00:00Z", "per_minute": 60, "patience_seconds": 600}
    await api.call("checkout", "PUT", "/v1/drops/SKU-4", token=token, body=terms)
    shopper = await scene.market.shop.shopper("customer:queueing").token()
    await api.call("checkout", "POST", "/v1/drops/SKU-4/places", token=shopper, key=str(uuid4()))
    yield {}
    await api.call("checkout", "DELETE", "/v1/drops/SKU-4", token=token)


# --- Money --------------------------------------------------------------------------------------------------------


@situation(
    "unknown-outcomes",
    "CartwrightPaymentsKnown",
    "CartwrightCheckoutLatency",
)
async def _the_provider_swallows_its_answers(scene: Scene) -> AsyncIterator[Blanks]:
    gone = (
        {"match": {"path": "/v1/payment_intents/*/confirm"}, "fault": "reset_after"},
        {"match": {"method": "GET"}, "fault": "500"},
    )
    async with scene.faults(*gone):
        started = await asyncio.gather(*(scene.begun(f"unsure-{number}", wait=4) for number in range(4)))
        payments = [each["payment_id"] for each in started]
        yield {"acme": "alerts-fired", "PAYMENT": payments[0], "CHECKOUT": started[0]["id"]}


@situation("open-circuit", "CartwrightCircuitOpen")
async def _the_provider_is_away(scene: Scene) -> AsyncIterator[Blanks]:
    async with scene.faults({"match": {"path": "/v1/*"}, "fault": "reset_before"}):
        await asyncio.gather(*(scene.begun(f"away-{number}") for number in range(40)))
        yield {}


@situation(
    "human-queue", "CartwrightOutcomesWaitForAPerson", not_run={"did-not-happen": "the charge is there, and it would be refused"}
)
async def _a_ladder_has_ended(scene: Scene) -> AsyncIterator[Blanks]:
    swallowed = {"match": {"path": "/v1/payment_intents/*/confirm"}, "fault": "reset_after"}
    async with scene.faults(swallowed, {"match": {"method": "GET"}, "fault": "500"}):
        checkout = await scene.begun("queued", wait=4)
        async with scene.database("payments") as database:

            async def unknown() -> bool:
                done = await database.execute(LADDER_ENDS, checkout["payment_id"])
                return bool(done != "UPDATE 0")

            await scene.market.until(unknown)
        yield {"PAYMENT": checkout["payment_id"], "CHECKOUT": checkout["id"]}
    read_again = ("--verdict", "read-again", "--reason", "the provider is back")
    assert (await scene.verb("payments", "unknown", "resolve", checkout["payment_id"], *read_again)).code in {0, 1}


@situation("reconciliation-breaks", "CartwrightBooksDiffer", "CartwrightNotReconciled")
async def _the_provider_has_money_that_we_do_not(scene: Scene) -> AsyncIterator[Blanks]:
    await paid(scene.market, "reconciled")
    lost = await held_for_no_order(scene.market)
    [found] = [each for each in await _open_breaks(scene) if each.get("our_id") == lost]
    yield {"acme": "alerts-fired", "BREAK": found["id"]}
    await _close_breaks(scene)


@situation("orphan-money", "CartwrightMoneyHasAnOrder")
async def _money_is_captured_by_hand_before_there_is_an_order(scene: Scene) -> AsyncIterator[Blanks]:
    checkout = await scene.begun("captured-by-hand", CHALLENGED, wait=20)
    async with scene.stopped("checkout.worker"):
        [intent] = await scene.market.charges(checkout["id"])
        await scene.at_provider(f"/_control/payment_intents/{intent['id']}/authentication", outcome="succeed")
        await scene.at_provider(f"/v1/payment_intents/{intent['id']}/capture")
        yield {"CHECKOUT": checkout["id"]}


@situation("reviews", "CartwrightReviewsWait")
async def _a_difference_waits_for_a_person(scene: Scene) -> AsyncIterator[Blanks]:
    await held_for_no_order(scene.market)
    assert await _open_breaks(scene)
    yield {"acme": "alerts-fired"}
    await _close_breaks(scene)


async def _open_breaks(scene: Scene) -> list[dict[str, Any]]:
    said = await scene.verb("reconcile", "--tenant", "alerts-fired", "--grace-seconds", "0", "--json")
    [report] = said.told["tenants"]
    return [each for each in report["breaks"] if each["state"] == "open"]


async def _close_breaks(scene: Scene) -> None:
    reason = ("--tenant", "alerts-fired", "--reason", "a test")
    for each in await _open_breaks(scene):
        assert (await scene.verb("payments", "breaks", "close", each["id"], *reason)).code == 0


@situation("erasing", "CartwrightErasureWaits")
async def _a_tenant_leaves_while_a_buyer_disputes(scene: Scene) -> AsyncIterator[Blanks]:
    shop = await shop_at(scene.market.api, "leaving")
    await supply(shop, "GBP", OFFERS, print)
    bought = await paid(replace(scene.market, shop=shop), "disputing")
    [intent] = await scene.market.charges(bought["id"])
    dispute = await scene.at_provider("/_control/disputes", payment_intent=intent["id"])

    async def is_known() -> bool:
        async with scene.database("payments") as database:
            return bool(await database.fetchval("SELECT count(*) FROM dispute WHERE provider_id = $1", dispute["id"]))

    await scene.market.until(is_known)
    assert (await scene.verb("tenants", "close", "leaving")).code == 0
    said = await scene.verb("tenants", "erase", "leaving", "--yes")
    assert (said.code, "payments" in said.out) == (1, True), said
    yield {"TENANT": "leaving"}
    await scene.at_provider(f"/_control/disputes/{dispute['id']}", status="lost")


@situation("", "CartwrightWebhooksLate")
async def _what_webhooks_are_about_cannot_be_read(scene: Scene) -> AsyncIterator[Blanks]:
    bought = await paid(scene.market, "disputed")
    [intent] = await scene.market.charges(bought["id"])
    async with scene.faults({"match": {"method": "GET"}, "fault": "500"}):
        dispute = await scene.at_provider("/_control/disputes", payment_intent=intent["id"])
        yield {}
    await scene.at_provider(f"/_control/disputes/{dispute['id']}", status="won")


@situation("webhooks", "CartwrightWebhooksRefused")
async def _somebody_signs_webhooks_with_another_secret(scene: Scene) -> AsyncIterator[Blanks]:
    address = scene.market.api.stack.services["payments"].url
    async with aiohttp.ClientSession(address) as session:

        async def ask() -> None:
            async with session.post("/v1/webhooks/stripe", data=b"{}", headers={"Stripe-Signature": "t=1,v1=00"}) as answer:
                await answer.read()

        async with scene.again_and_again(ask, pause=0.5):
            yield {}
