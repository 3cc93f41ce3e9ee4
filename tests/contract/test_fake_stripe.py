"""The fake Stripe against what Stripe documents, over real HTTP: the official SDK where it can say it, raw where not.

Each rule of docs.stripe.com/api/idempotent_requests stands as the docstring of the test that holds it.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import stripe

from deploy.local.fake_stripe.api import SERVED
from deploy.local.fake_stripe.books import Answer, Books
from deploy.local.fake_stripe.cards import CARDS
from deploy.local.fake_stripe.errors import StripeError
from deploy.local.fake_stripe.faults import Fault
from deploy.local.fake_stripe.idempotency import LIFETIME_SECONDS, Ask, Keys, Place, Stored
from deploy.local.fake_stripe.intents import TRANSITIONS, Verb
from deploy.local.fake_stripe.journal import Journal
from deploy.local.fake_stripe.listing import Listing, Window
from deploy.local.fake_stripe.records import Change, Intent, Status
from services.payments.domain.outcome import Declined, IntentStatus, Outcome, Rejected, Succeeded, Throttled, Unknown
from services.payments.gateway.stripe import StripeGateway
from tests.shared.fakes import BASIC, DECLINED, INTENTS, POOR, ROOT, VISA, Account, Process, account_at

# --- Idempotency keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("card", "status"), [(VISA, 200), (POOR, 402)])
async def test_a_replayed_key_gives_the_first_status_and_body_to_the_byte(account: Account, card: str, status: int) -> None:
    """The first answer stays the answer.

    "...saving the resulting status code and body of the first request made for any given idempotency key,
    regardless of whether it succeeds or fails."
    """
    form = {"confirm": "true", "payment_method": card}
    first = await account.create("k1", **form)
    intent = first.json if status == 200 else first.error["payment_intent"]
    await account.ask("POST", f"{INTENTS}/{intent['id']}/cancel")  # what is replayed is the past, not the present
    again = await account.create("k1", **form)

    assert (first.status, again.status) == (status, status)
    assert again.raw == first.raw
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["idempotency-key"] == "k1"
    assert again.headers["original-request"] == first.headers["request-id"] != again.headers["request-id"]
    assert len((await account.ask("GET", INTENTS)).json["data"]) == 1


@pytest.mark.parametrize(("fault", "held"), [("500", 0), ("500_after", 1)])
async def test_a_500_is_stored_and_says_nothing_about_the_effect(account: Account, fault: str, held: int) -> None:
    """Stripe: "Subsequent requests with the same key return the same result, including 500 errors"."""
    await account.faults({"match": {"metadata": {"order": account.api_key}}, "fault": fault, "times": 1})
    form = {"confirm": "true", "payment_method": VISA, "metadata[order]": account.api_key}
    answers = [await account.create("k1", **form) for _ in range(3)]

    assert [answer.status for answer in answers] == [500] * 3
    assert len({answer.raw for answer in answers}) == 1
    assert answers[2].headers["idempotent-replayed"] == "true"
    assert answers[2].headers["stripe-should-retry"] == "false"
    found = (await account.ask("GET", INTENTS)).json["data"]
    assert [intent["amount_capturable"] for intent in found] == [1250] * held


async def test_a_key_reused_for_another_request_is_an_idempotency_error(account: Account) -> None:
    """The whole request counts, the order of its parameters does not.

    "The idempotency layer compares incoming parameters to those of the original request and errors if they're
    not the same to prevent accidental misuse."
    """
    intent = (await account.create("k1", payment_method=VISA)).json
    other_amount = await account.create("k1", payment_method=VISA, amount="1251")
    other_path = await account.ask("POST", f"{INTENTS}/{intent['id']}/confirm", BASIC, key="k1")
    reordered = await account.ask("POST", INTENTS, dict(reversed((BASIC | {"payment_method": VISA}).items())), key="k1")

    for refused in (other_amount, other_path):
        assert (refused.status, refused.error["type"]) == (400, "idempotency_error")
    assert f"'{INTENTS}/{intent['id']}/confirm' vs '{INTENTS}'" in other_path.error["message"]
    assert reordered.json == intent
    with pytest.raises(stripe.IdempotencyError):
        await account.sdk.payment_intents.create_async({"amount": 9, "currency": "gbp"}, {"idempotency_key": "k1"})


async def test_a_key_in_flight_conflicts_and_then_replays(account: Account) -> None:
    """The loser of a race may come back.

    "...or the request conflicted with another that's executing concurrently, we don't save the idempotent result
    [...] You can retry these requests."
    """
    await account.faults({"match": {"metadata": {"order": account.api_key}}, "fault": "latency", "delay_ms": 400})
    form = {"metadata[order]": account.api_key}
    first = asyncio.create_task(account.create("k1", **form))
    await asyncio.sleep(0.15)
    meanwhile = await account.create("k1", **form)
    assert (meanwhile.status, meanwhile.error["code"]) == (409, "idempotency_key_in_use")
    assert meanwhile.headers["stripe-should-retry"] == "true"

    assert (await first).status == 200
    after = await account.create("k1", **form)
    assert (after.raw, after.headers["idempotent-replayed"]) == ((await first).raw, "true")


async def test_fifty_concurrent_requests_under_one_key_make_one_intent(account: Account) -> None:
    """One effect, however many ask at once."""
    answers = await asyncio.gather(*(account.create("k1", confirm="true", payment_method=VISA) for _ in range(50)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert len({answer.raw for answer in answers if answer.status == 200}) == 1
    assert len((await account.ask("GET", "/v1/charges")).json["data"]) == 1


async def test_what_was_refused_before_it_began_leaves_the_key_free(account: Account) -> None:
    """What never began is not remembered.

    "If incoming parameters fail validation [...] we don't save the idempotent result because no API endpoint
    initiates the execution." The same holds for 401 and 429, which stand before the layer.
    """
    rule = {"match": {"metadata": {"order": account.api_key}}, "fault": "429", "times": 1}
    await account.faults(rule)
    invalid = await account.create("k1", amount="12.50")
    anonymous = await account.ask("POST", INTENTS, BASIC, key="k1", headers={"Authorization": "Basic Og=="})
    limited = await account.create("k1", **{"metadata[order]": account.api_key})
    assert [invalid.status, anonymous.status, limited.status] == [400, 401, 429]

    good = await account.create("k1")
    assert good.status == 200
    assert "idempotent-replayed" not in good.headers


async def test_keys_and_objects_of_one_account_mean_nothing_to_another(account: Account, process: Process) -> None:
    """One `api_key` sees what was made with it alone, by Bearer and Basic alike; so does a connected account."""
    mine = (await account.create("k1")).json
    async with account_at(process.url) as stranger:
        theirs = await stranger.create("k1", amount="77")
        assert theirs.status == 200
        assert (await stranger.ask("GET", f"{INTENTS}/{mine['id']}")).error["code"] == "resource_missing"
        assert [row["amount"] for row in (await stranger.ask("GET", INTENTS)).json["data"]] == [77]
    basic = "Basic " + b64encode(f"{account.api_key}:".encode()).decode()
    seen = await account.ask("GET", f"{INTENTS}/{mine['id']}", headers={"Authorization": basic})
    connected = await account.ask("GET", f"{INTENTS}/{mine['id']}", headers={"Stripe-Account": "acct_1"})
    assert (seen.json, connected.status) == (mine, 404)


def test_a_key_is_new_again_after_24_hours_and_never_longer_than_255_characters() -> None:
    """Keys have an end and a size.

    "You can remove keys from the system automatically after they're at least 24 hours old. We generate a new
    request if a key is reused after the original is pruned." "...keys are up to 255 characters long."
    """
    keys, first, other = Keys(), Ask("k1", INTENTS, "a"), Ask("k1", INTENTS, "b")
    assert keys.begin(first, now=1000) is None
    keys.store(Stored(first, 200, "req_1", 1000, Place(0, 2)))
    keys.end(first)

    assert keys.begin(first, now=1000 + LIFETIME_SECONDS - 1) is not None
    with pytest.raises(StripeError):
        keys.begin(other, now=1000 + LIFETIME_SECONDS - 1)
    assert keys.begin(other, now=1000 + LIFETIME_SECONDS) is None
    assert keys.begin(replace(first, key="k" * 255), now=1000) is None
    with pytest.raises(StripeError):
        keys.begin(replace(first, key="k" * 256), now=1000)


# --- The machine, cards and parameters ----------------------------------------------------------------------------


async def test_a_held_amount_is_captured_in_part_and_the_charge_tells_until_when(account: Account) -> None:
    """Create, confirm, capture through the SDK, with the amounts, the charge and its window at each step."""
    intents = account.sdk.payment_intents
    intent = await intents.create_async(
        {
            "amount": 1250,
            "currency": "GBP",
            "capture_method": "manual",
            "payment_method": VISA,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": {"tenant_id": "t1", "7": "numbers are keys too"},
        }
    )
    assert (intent.status, intent.currency, intent.livemode) == ("requires_confirmation", "gbp", False)
    assert intent.metadata.to_dict() == {"tenant_id": "t1", "7": "numbers are keys too"}

    held = await intents.confirm_async(intent.id, {"expand": ["latest_charge"]})
    charge = held.latest_charge
    assert isinstance(charge, stripe.Charge)
    assert (held.status, held.amount_capturable, charge.captured) == ("requires_capture", 1250, False)
    assert charge.payment_method_details is not None
    assert charge.payment_method_details["card"]["capture_before"] == charge.created + 7 * 24 * 3600

    taken = await intents.capture_async(intent.id, {"amount_to_capture": 1000})
    assert (taken.status, taken.amount_received, taken.amount_capturable) == ("succeeded", 1000, 0)
    after = await account.sdk.charges.retrieve_async(charge.id)
    assert (after.captured, after.amount_captured, after.amount) == (True, 1000, 1250)


SETUPS: dict[Status, tuple[dict[str, str], str | None]] = {
    Status.REQUIRES_PAYMENT_METHOD: ({}, None),
    Status.REQUIRES_CONFIRMATION: ({"payment_method": VISA}, None),
    Status.REQUIRES_CAPTURE: ({"payment_method": VISA, "confirm": "true"}, None),
    Status.SUCCEEDED: ({"payment_method": VISA, "confirm": "true", "capture_method": "automatic"}, None),
    Status.REQUIRES_ACTION: ({"payment_method": "pm_card_authenticationRequired", "confirm": "true"}, None),
    Status.CANCELED: ({}, "cancel"),
}


@pytest.mark.parametrize("status", SETUPS)
@pytest.mark.parametrize("verb", [Verb.CONFIRM, Verb.CAPTURE, Verb.CANCEL])
async def test_a_move_outside_the_table_is_refused_and_changes_nothing(account: Account, status: Status, verb: Verb) -> None:
    """TRANSITIONS is what the fake does, for each state a client can reach and each verb."""
    form, then = SETUPS[status]
    intent = (await account.create(**form)).json
    if then is not None:
        intent = (await account.ask("POST", f"{INTENTS}/{intent['id']}/{then}")).json
    assert intent["status"] == status
    wanted = {"payment_method": VISA} if verb is Verb.CONFIRM else {}
    answer = await account.ask("POST", f"{INTENTS}/{intent['id']}/{verb}", wanted)
    now = (await account.ask("GET", f"{INTENTS}/{intent['id']}")).json

    if status in TRANSITIONS[verb]:
        assert answer.status == 200
        assert now["status"] in TRANSITIONS[verb][status]
    else:
        assert (answer.status, answer.error["code"]) == (400, "payment_intent_unexpected_state")
        assert answer.error["payment_intent"] == now == intent


@pytest.mark.parametrize(("card", "reason"), [(DECLINED, "generic_decline"), (POOR, "insufficient_funds")])
async def test_a_decline_returns_the_intent_for_another_card(account: Account, card: str, reason: str) -> None:
    """402 with Stripe's error, a failed charge, and nothing held; the next card may succeed."""
    intent = (await account.create(payment_method=card)).json
    with pytest.raises(stripe.CardError) as caught:
        await account.sdk.payment_intents.confirm_async(intent["id"])
    error = caught.value.error
    assert error is not None
    assert (error.type, error.code, error.decline_code) == ("card_error", "card_declined", reason)
    assert error.payment_intent is not None
    assert error.payment_intent.status == "requires_payment_method"
    assert error.payment_intent.last_payment_error is not None
    assert (error.payment_intent.last_payment_error.decline_code, error.payment_intent.payment_method) == (reason, None)
    assert error.charge is not None
    failed = await account.sdk.charges.retrieve_async(error.charge)
    assert (failed.status, failed.paid, failed.amount_captured) == ("failed", False, 0)

    held = await account.sdk.payment_intents.confirm_async(intent["id"], {"payment_method": VISA})
    assert (held.status, held.last_payment_error) == ("requires_capture", None)
    charges = await account.sdk.charges.list_async({"payment_intent": intent["id"]})
    assert [charge.status for charge in charges.data] == ["succeeded", "failed"]


@pytest.mark.parametrize(
    ("form", "code", "param"),
    [
        ({"amount": ""}, "parameter_missing", "amount"),
        ({"amount": "12.50"}, "parameter_invalid_integer", "amount"),
        ({"amount": "0"}, "amount_too_small", "amount"),
        ({"amount": "-1"}, "amount_too_small", "amount"),
        ({"amount": "100000000"}, "amount_too_large", "amount"),
        ({"currency": "zzz"}, None, "currency"),
        ({"colour": "blue"}, "parameter_unknown", "colour"),
        ({"capture_method": "later"}, None, "capture_method"),
        ({"payment_method": "pm_card_unheardOf"}, "resource_missing", "payment_method"),
        ({"metadata[k]": "v" * 501}, None, "metadata[k]"),
        ({"automatic_payment_methods[enabled]": "true"}, None, "allowed_payment_method_types"),
    ],
)
async def test_a_bad_parameter_is_named_and_nothing_is_made(
    account: Account, form: dict[str, str], code: str | None, param: str
) -> None:
    """400 with Stripe's code and the parameter's name."""
    refused = await account.create(**form)
    assert refused.status == 400
    assert (refused.error.get("code"), refused.error["param"]) == (code, param)
    assert (await account.ask("GET", INTENTS)).json["data"] == []


async def test_payment_method_types_is_refused_from_the_endive_version_on(account: Account) -> None:
    """docs.stripe.com/changelog/endive/2026-09-30: the code is `payment_method_types_no_longer_supported`."""
    form = {"amount": "5", "currency": "gbp", "payment_method_types[]": "card"}
    new = await account.ask("POST", INTENTS, form, headers={"Stripe-Version": "2026-10-28.endive"})
    old = await account.ask("POST", INTENTS, form, headers={"Stripe-Version": "2025-03-31.basil"})
    assert (new.status, new.error["code"]) == (400, "payment_method_types_no_longer_supported")
    assert (old.status, old.headers["stripe-version"]) == (200, "2025-03-31.basil")


async def test_a_confirmation_that_might_redirect_needs_somewhere_to_return_to(account: Account) -> None:
    """Stripe's default since 2023-08-16, and the reason the gateway asks for methods that never redirect."""
    intent = (await account.ask("POST", INTENTS, {"amount": "5", "currency": "gbp", "payment_method": VISA})).json
    path = f"{INTENTS}/{intent['id']}/confirm"
    refused = await account.ask("POST", path)
    assert (refused.status, refused.error["param"]) == (400, "return_url")
    assert (await account.ask("POST", path, {"return_url": "https://shop.test/"})).status == 200


@pytest.mark.parametrize("kind", [stripe.PaymentIntent, stripe.Charge])
async def test_an_object_has_every_member_the_sdk_declares_as_required(account: Account, kind: type) -> None:
    """The SDK's classes are generated from Stripe's OpenAPI for the version it pins."""
    intent = (await account.create(payment_method=VISA, confirm="true", **{"expand[]": "latest_charge"})).json
    found = intent if kind is stripe.PaymentIntent else intent["latest_charge"]
    required = {
        name
        for name, hint in kind.__annotations__.items()
        if not any(word in str(hint) for word in ("Optional", "None", "ClassVar"))
    }
    assert len(required) > 5
    assert required <= set(found)


# --- Lists --------------------------------------------------------------------------------------------------------


async def test_paging_visits_each_intent_once_newest_first_while_more_arrive(account: Account) -> None:
    """The SDK's own auto-paging over a list that grows at its head; then backwards by `ending_before`."""
    made = [(await account.create(customer="cus_1" if n % 3 else "cus_2")).json["id"] for n in range(25)]
    page = await account.sdk.payment_intents.list_async({"limit": 4})
    seen = []
    async for intent in page.auto_paging_iter():
        seen.append(intent.id)
        if len(seen) == 6:
            await account.create()
    assert seen == made[::-1]

    back = await account.sdk.payment_intents.list_async({"limit": 4, "ending_before": made[0]})
    assert ([row.id for row in back.data], back.has_more) == (made[4:0:-1], True)
    theirs = await account.sdk.payment_intents.list_async({"limit": 100, "customer": "cus_2"})
    assert [row.id for row in theirs.data] == [made[n] for n in range(24, -1, -1) if n % 3 == 0]
    future = await account.sdk.payment_intents.list_async({"created": {"gt": int(time.time()) + 60}})
    assert future.data == []
    unknown = await account.ask("GET", INTENTS, {"starting_after": "pi_none"})
    assert (unknown.status, unknown.error["param"]) == (400, "starting_after")
    assert (await account.ask("GET", INTENTS, {"limit": "101"})).error["code"] == "parameter_invalid_integer"


def test_a_page_out_of_50_000_is_what_a_full_scan_would_give_and_costs_only_itself() -> None:
    """Random windows against the obvious definition; then deep pages beside those of a list a hundredth as long."""
    chance, listing, rows = random.Random(1), Listing(), list[tuple[str, int]]()
    for number in range(50_000):
        rows.append((f"pi_{number}", number // 7))
        listing.add(*rows[-1])
    for _ in range(40):
        cursor, (since, until) = chance.choice(rows)[0], sorted(chance.sample(range(7200), 2))
        window = Window(chance.randint(1, 100), since=since, until=until, starting_after=cursor)
        older = [name for name, at in rows[: int(cursor[3:])] if since <= at <= until][::-1]
        found = listing.page(window)
        assert (found.ids, found.has_more) == (older[: window.limit], len(older) > window.limit)
        found = listing.page(replace(window, starting_after=None, ending_before=cursor))
        newer = [name for name, at in rows[int(cursor[3:]) + 1 :] if since <= at <= until]
        assert (found.ids, found.has_more) == (newer[: window.limit][::-1], len(newer) > window.limit)
    short = Listing()
    for row in rows[:500]:
        short.add(*row)
    assert _cost_of_pages(listing) < 20 * _cost_of_pages(short)


def _cost_of_pages(listing: Listing) -> float:
    began = time.process_time()
    for number in range(5_000):
        listing.page(Window(100, starting_after=f"pi_{100 + number % 400}"))
    return time.process_time() - began


# --- Memory -------------------------------------------------------------------------------------------------------


async def buy(account: Account, number: int) -> str:
    """Create, confirm and capture under fixed keys; the answer of the last step as it was received."""
    form = {"payment_method": VISA, "metadata[tenant_id]": account.api_key, "metadata[order]": str(number)}
    intent = (await account.create(f"create-{number}", **form)).json["id"]
    await account.ask("POST", f"{INTENTS}/{intent}/confirm", key=f"confirm-{number}")
    return (await account.ask("POST", f"{INTENTS}/{intent}/capture", key=f"capture-{number}")).raw.decode()


async def test_kill_9_under_load_loses_nothing_answered_and_doubles_nothing_retried(
    start: Callable[[Path], Process], tmp_path: Path
) -> None:
    """What was answered is found again; what was cut off, sent again under its key, takes effect once."""
    running, answered = start(tmp_path / "journal"), dict[int, str]()
    api_key, orders = f"sk_test_{uuid4().hex}", 300

    async def buyer(account: Account, number: int) -> None:
        answered[number] = await buy(account, number)
        if len(answered) == orders // 3:
            running.child.send_signal(signal.SIGKILL)

    async with account_at(running.url, api_key) as account:
        await asyncio.gather(*(buyer(account, number) for number in range(orders)), return_exceptions=True)
    running.kill()
    assert orders // 3 <= len(answered) < orders
    with running.state.open("ab") as journal:
        journal.write(b'{"account":"acct_torn","intent":{"id":"pi_')  # a line the crash tore

    running = start(running.state)
    async with account_at(running.url, api_key) as account:
        again = {number: await buy(account, number) for number in range(orders)}
        assert {number: again[number] for number in answered} == answered
        late = again.keys() - answered.keys()
        assert {number: await buy(account, number) for number in late} == {number: again[number] for number in late}
        async with account.session.get(account.url + "/_control/ledger") as ledger:
            rows = (await ledger.json())["rows"]
    assert [(row["intents"], row["captured_count"], row["captured_minor"]) for row in rows] == [(orders, orders, orders * 1250)]

    running.kill()  # what was written after the torn line must be as readable as what stood before it
    running = start(running.state)
    async with account_at(running.url, api_key) as account:
        assert await buy(account, orders - 1) == again[orders - 1]


def test_a_journal_is_held_by_one_process_and_a_second_says_so(process: Process) -> None:
    """Exit 3, the environment prevents it, with what to do about it."""
    command = [sys.executable, "-m", "deploy.local.fake_stripe", "--port", "0", "--state", str(process.state)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=20)
    assert second.returncode == 3
    assert "in use by another fake Stripe" in second.stderr


def test_a_journal_of_superseded_lines_shrinks_at_the_next_start(tmp_path: Path) -> None:
    """And what it means stays the same: objects, their order and the keys that still live."""
    now, path = 1_000_000, tmp_path / "journal"
    books = Books(Journal(path), now)
    account = books.account("sk_test_x")
    intent = Intent(
        id="pi_0",
        client_secret="secret",
        amount=5,
        currency="gbp",
        created=now,
        status=Status.REQUIRES_PAYMENT_METHOD,
        capture_method="manual",
        confirmation_method="automatic",
        metadata={},
        payment_method_types=["card"],
        automatic=False,
    )
    for number in range(3):
        books.record(account, Change(replace(intent, id=f"pi_{number}")), None, at=now)
    for number in range(10_000):
        asked = Ask(f"k{number}", INTENTS, "f")
        stored_at = now - (LIFETIME_SECONDS if number < 8000 else 0)
        answer = Answer(asked, 200, "req_1", stored_at, b'{"n":%d}' % number)
        books.record(account, Change(replace(intent, id="pi_0", description=str(number))), answer, at=now)
    books.close()
    before = path.stat().st_size

    for _ in range(2):
        books = Books(Journal(path), now)
        account = books.account("sk_test_x")
        assert [intent.id for intent in account.intents] == ["pi_0", "pi_1", "pi_2"]
        assert account.intents.listing().page(Window()).ids == ["pi_2", "pi_1", "pi_0"]
        assert account.intents.get("pi_0").description == "9999"
        assert len(account.keys) == 2000
        stored = account.keys.begin(Ask("k9000", INTENTS, "f"), now)
        assert stored is not None
        assert books.body_of(stored) == b'{"n":9000}'
        books.close()
        assert path.stat().st_size < before / 4


# --- The gateway over it ------------------------------------------------------------------------------------------


@pytest.fixture
async def gateway(account: Account) -> AsyncIterator[StripeGateway]:
    """Our gateway on the same account, with a short patience."""
    opened = StripeGateway(account.api_key, account.url, timeout_seconds=0.5)
    yield opened
    await opened.close()


async def announced(gateway: StripeGateway, account: Account, method: str = VISA) -> str:
    """Create an intent through the gateway."""
    outcome = await gateway.create_intent(
        f"create-{uuid4()}",
        amount_minor=1250,
        currency="GBP",
        method=method,
        capture="manual",
        metadata={"order": account.api_key},
    )
    assert isinstance(outcome, Succeeded), outcome
    assert (outcome.status, outcome.currency) == (IntentStatus.NEEDS_CONFIRMATION, "gbp")
    return outcome.intent_id


async def test_the_gateway_tells_authorized_captured_canceled_and_declined_apart(
    gateway: StripeGateway, account: Account
) -> None:
    """Each definite answer, in our words."""
    paid, void, poor = [await announced(gateway, account, method) for method in (VISA, VISA, POOR)]
    authorized = await gateway.confirm_intent("a1", paid, VISA)
    assert isinstance(authorized, Succeeded)
    assert (authorized.status, authorized.amount_capturable_minor) == (IntentStatus.AUTHORIZED, 1250)
    assert authorized.expires_at is not None
    assert authorized.charge_id is not None
    assert await gateway.retrieve_intent(paid) == authorized
    captured = await gateway.capture_intent("c1", paid, 1000)
    assert isinstance(captured, Succeeded)
    assert (captured.status, captured.amount_received_minor) == (IntentStatus.CAPTURED, 1000)
    canceled = await gateway.cancel_intent("v1", void)
    assert isinstance(canceled, Succeeded)
    assert canceled.status is IntentStatus.CANCELED
    declined = await gateway.confirm_intent("a2", poor, POOR)
    assert isinstance(declined, Declined)
    assert (declined.code, declined.intent_id) == ("insufficient_funds", poor)
    assert declined.charge_id is not None
    assert await gateway.retrieve_intent(poor) == declined


async def test_the_gateway_calls_definite_only_what_stripe_promises_changed_nothing(
    gateway: StripeGateway, account: Account
) -> None:
    """Rejected and Throttled are promises; a key used for another request is none."""
    intent = await announced(gateway, account)

    def code(outcome: Outcome) -> str:
        assert isinstance(outcome, Rejected), outcome
        return outcome.code

    assert code(await gateway.capture_intent("c1", intent, 1250)) == "wrong-state"
    assert code(await gateway.retrieve_intent("pi_none")) == "not-found"
    assert code(await gateway.capture_intent("c2", intent, 0)) == "amount-out-of-range"
    stranger = StripeGateway("pk_live_no", account.url)
    assert code(await stranger.retrieve_intent(intent)) == "unauthorized"
    await stranger.close()
    await gateway.confirm_intent("a1", intent, VISA)
    assert await gateway.confirm_intent("a1", intent, POOR) == Unknown("key-used-for-another-request")
    await account.faults({"match": {"path": f"{INTENTS}/{intent}/capture"}, "fault": "429"})
    assert await gateway.capture_intent("c3", intent, 1250) == Throttled(None)


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "hang", "500", "500_after", "409", "latency"])
async def test_an_unknown_outcome_is_resolved_by_the_same_key_or_by_reading(
    gateway: StripeGateway, account: Account, fault: str
) -> None:
    """Whatever cut the answer off: never a second effect, and in the end a certain one."""
    intent = await announced(gateway, account)
    await gateway.confirm_intent("a1", intent, VISA)
    match = {"path": f"{INTENTS}/*/capture", "metadata": {"order": account.api_key}}
    rule = {"match": match, "fault": fault, "times": 1, "delay_ms": 900 if fault == "latency" else 0}
    await account.faults(rule)

    assert isinstance(await gateway.capture_intent("c1", intent, 1250), Unknown)
    meanwhile = await gateway.retrieve_intent(intent)
    assert isinstance(meanwhile, Succeeded)
    happened = fault in {"reset_after", "hang", "500_after"}
    assert meanwhile.status is (IntentStatus.CAPTURED if happened else IntentStatus.AUTHORIZED)
    if fault == "latency":  # the provider had the request all the time, and acts on it late
        await asyncio.sleep(0.6)
    again = await gateway.capture_intent("c1", intent, 1250)
    truth = await gateway.retrieve_intent(intent)
    assert isinstance(truth, Succeeded)
    if fault in {"500", "500_after"}:  # stored: the same key never tells, the object does
        assert isinstance(again, Unknown)
        assert truth == meanwhile
    else:
        assert isinstance(again, Succeeded)
        assert (again.status, truth.amount_received_minor) == (IntentStatus.CAPTURED, 1250)
    assert len((await account.ask("GET", "/v1/charges", {"payment_intent": intent})).json["data"]) == 1


async def test_nobody_listening_is_unknown_and_never_raised() -> None:
    """A refused connection too: the caller decides by its own record whether anything was sent before."""
    gateway = StripeGateway("sk_test_x", "http://127.0.0.1:9", timeout_seconds=1)
    assert isinstance(await gateway.retrieve_intent("pi_1"), Unknown)
    await gateway.close()


async def test_a_fault_plan_that_cannot_be_read_is_refused_and_the_one_in_force_stays(account: Account) -> None:
    """A typing error must not pass as a calm day."""
    await account.faults({"fault": "latency", "match": {"metadata": {"order": "none"}}, "times": 2})
    plans: list[object] = [[{"fault": "earthquake"}], [{"fault": "429", "matches": {}}], {"rule": []}, [{"times": 1}]]
    for wrong in plans:
        async with account.session.put(account.url + "/_control/faults", json=wrong) as answer:
            assert answer.status == 400
            assert "rule" in (await answer.json())["error"]
    async with account.session.get(account.url + "/_control/faults") as answer:
        assert [rule["times"] for rule in (await answer.json())["rules"]] == [2]


async def test_reset_forgets_objects_and_keys_for_good(start: Callable[[Path], Process], tmp_path: Path) -> None:
    """Also after a restart."""
    running = start(tmp_path / "journal")
    async with account_at(running.url) as account:
        old = await account.create("k1")
        async with account.session.post(account.url + "/_control/reset") as answer:
            assert answer.status == 200
        new = await account.create("k1", amount="2")
        assert (old.status, new.status) == (200, 200)
        running.kill()
        running = start(running.state)
        account.url = running.url
        assert [row["amount"] for row in (await account.ask("GET", INTENTS)).json["data"]] == [2]
    assert running.state.stat().st_mode & 0o077 == 0


# --- The README ---------------------------------------------------------------------------------------------------


def test_each_idempotency_rule_of_the_readme_has_its_test_and_every_path_and_card_its_row() -> None:
    readme = (ROOT / "deploy/local/fake_stripe/README.md").read_text()
    named = re.findall(r"`(test_\w+)`", readme)
    written = "".join(file.read_text() for file in Path(__file__).parent.glob("test_fake_stripe*.py"))
    assert len(named) >= 9
    assert [name for name in named if f"def {name}(" not in written] == []
    assert [served.path for served in SERVED if f"{served.path}`" not in readme and f"{served.path}," not in readme] == []
    assert [fault for fault in Fault if f"`{fault}`" not in readme] == []
    endings = [card.removeprefix("pm_card_") for card in CARDS]
    shown = [name.removeprefix("pm_card_").lstrip("…_") for name in re.findall(r"`(pm_card_\w+|…\w+)`", readme)]
    assert [card for card in endings if not any(card.endswith(name) for name in shown)] == []
