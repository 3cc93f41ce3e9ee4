"""Refunds, disputes, the balance, several captures, 3-D Secure, the buyer's own confirmation and time, as Stripe has them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stripe

from deploy.local.fake_stripe.balance import DISPUTE_FEE, charge_fee
from deploy.local.fake_stripe.cards import CARDS
from deploy.local.fake_stripe.disputes import TRANSITIONS as DISPUTE_MOVES
from deploy.local.fake_stripe.intents import HOLD_SECONDS
from deploy.local.fake_stripe.records import DisputeStatus
from tests.shared.fakes import INTENTS, POOR, ROOT, VISA, Account, Process, account_at, control

SEVERAL = {"payment_method_options[card][request_multicapture]": "if_available"}


async def paid(account: Account, card: str = VISA, **form: str) -> str:
    """Pay at once; the intent's id."""
    intent = await account.create(confirm="true", payment_method=card, capture_method="automatic", **form)
    assert intent.status == 200, intent.raw
    found: str = intent.json["id"]
    return found


async def refund(account: Account, intent: str, amount: int | None = None, **more: str) -> Any:
    """Ask for a refund."""
    form = {"payment_intent": intent, **more} | ({} if amount is None else {"amount": str(amount)})
    return await account.ask("POST", "/v1/refunds", form)


async def balance(account: Account) -> int:
    """The account's balance by its own transactions, which must be what `GET /v1/balance` says."""
    rows = (await account.ask("GET", "/v1/balance_transactions", {"limit": "100"})).json["data"]
    assert all(
        row["net"] == row["amount"] - row["fee"] == row["amount"] - sum(f["amount"] for f in row["fee_details"]) for row in rows
    )
    shown = (await account.ask("GET", "/v1/balance")).json
    total: int = sum(row["net"] for row in rows)
    assert sum(row["amount"] for kind in ("available", "pending") for row in shown[kind]) == total
    return total


async def eventually(account: Account, path: str, **members: object) -> dict[str, Any]:
    """Read an object until it is as it is to become."""
    async with asyncio.timeout(15):
        while True:
            seen = (await account.ask("GET", path)).json
            if {name: seen.get(name) for name in members} == members:
                return seen
            await asyncio.sleep(0.05)


# --- Refunds ------------------------------------------------------------------------------------------------------


async def test_refunds_in_parts_never_exceed_the_charge_and_the_refusals_are_stripes(account: Account) -> None:
    intent = await paid(account)
    first = await account.sdk.refunds.create_async({"payment_intent": intent, "amount": 250, "metadata": {"refund_id": "r1"}})
    assert (first.status, first.amount) == ("succeeded", 250)
    too_much = await refund(account, intent, 1001)
    assert (too_much.status, too_much.error["param"], too_much.error["message"]) == (
        400,
        "amount",
        "Refund amount (£10.01) is greater than unrefunded amount on charge (£10.00)",
    )
    rest = (await refund(account, intent)).json
    assert (await account.ask("GET", f"/v1/refunds/{first.id}")).json["metadata"] == {"refund_id": "r1"}
    assert rest["amount"] == 1000
    again = await refund(account, intent)
    assert (again.status, again.error["code"]) == (400, "charge_already_refunded")
    charge = (await account.ask("GET", f"/v1/charges/{rest['charge']}")).json
    assert (charge["refunded"], charge["amount_refunded"]) == (True, 1250)
    assert [row["id"] for row in (await account.ask("GET", "/v1/refunds", {"payment_intent": intent})).json["data"]] == [
        rest["id"],
        first.id,
    ]
    assert await balance(account) == -charge_fee(1250)


async def test_fifty_concurrent_refunds_give_back_exactly_what_was_captured(account: Account) -> None:
    intent = await paid(account)
    answers = await asyncio.gather(*(refund(account, intent, 100) for _ in range(50)))
    assert sorted(answer.status for answer in answers) == [200] * 12 + [400] * 38
    assert (await refund(account, intent)).json["amount"] == 50


async def test_a_pending_refund_succeeds_later_and_a_good_one_may_still_fail_and_be_asked_for_again(account: Account) -> None:
    """`pm_card_pendingRefund` and `pm_card_refundFail`, with the money they move."""
    slow, bad = await paid(account, "pm_card_pendingRefund"), await paid(account, "pm_card_refundFail")
    fees = 2 * charge_fee(1250)
    pending, doomed = (await refund(account, slow)).json, (await refund(account, bad)).json
    assert (pending["status"], pending["pending_reason"], doomed["status"]) == ("pending", "processing", "succeeded")
    assert await balance(account) == -fees
    await eventually(account, f"/v1/refunds/{pending['id']}", status="succeeded")
    failed = await eventually(account, f"/v1/refunds/{doomed['id']}", status="failed")
    assert failed["failure_reason"] == "expired_or_canceled_card"
    back = (await account.ask("GET", f"/v1/balance_transactions/{failed['failure_balance_transaction']}")).json
    assert (back["type"], back["amount"], back["source"]) == ("refund_failure", 1250, doomed["id"])
    assert await balance(account) == 1250 - fees
    assert (await refund(account, bad)).status == 200
    kinds = [row["type"] for row in (await account.ask("GET", "/v1/events", {"type": "refund.*"})).json["data"]]
    assert kinds.count("refund.failed") == 1


async def test_what_never_paid_cannot_be_refunded(account: Account) -> None:
    held = (await account.create(confirm="true", payment_method=VISA)).json["id"]
    poor = (await account.create(confirm="true", payment_method=POOR)).error["payment_intent"]["id"]
    for intent in (held, poor, (await account.create()).json["id"]):
        answer = await refund(account, intent)
        assert answer.status == 400
        refused = "You must cancel the PaymentIntent" if intent == held else "does not have a successful charge to refund"
        assert refused in answer.error["message"]
    assert (await refund(account, "pi_none")).error["code"] == "resource_missing"
    assert (await account.ask("POST", "/v1/refunds", {"amount": "1"})).error["code"] == "parameter_missing"


# --- Disputes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "status", "left"),
    [("winning_evidence", "won", 1250), ("losing_evidence", "lost", 0), ("we sent it", "under_review", 0)],
)
async def test_a_dispute_takes_the_money_and_evidence_decides_who_keeps_it(
    account: Account, evidence: str, status: str, left: int
) -> None:
    intent = await paid(account, "pm_card_createDispute")
    (dispute,) = (await account.sdk.disputes.list_async({"payment_intent": intent})).data
    assert (dispute.status, dispute.reason, dispute.amount) == ("needs_response", "fraudulent", 1250)
    assert await balance(account) == -charge_fee(1250) - DISPUTE_FEE
    assert (await refund(account, intent)).error["code"] == "charge_disputed"

    after = await account.sdk.disputes.update_async(dispute.id, {"evidence": {"uncategorized_text": evidence}})
    assert (after.status, after.evidence_details.submission_count) == (status, 1)
    assert await balance(account) == left - charge_fee(1250) - DISPUTE_FEE
    if status != "under_review":
        again = await account.ask("POST", f"/v1/disputes/{dispute.id}/close")
        assert (again.status, "already closed" in again.error["message"]) == (400, True)
    if status == "won":
        assert (await refund(account, intent)).status == 200


async def test_an_inquiry_holds_nothing_back_until_it_is_escalated(account: Account) -> None:
    intent = await paid(account, "pm_card_createDisputeInquiry")
    (inquiry,) = (await account.ask("GET", "/v1/disputes", {"payment_intent": intent})).json["data"]
    assert (inquiry["status"], inquiry["balance_transactions"]) == ("warning_needs_response", [])
    assert await balance(account) == 1250 - charge_fee(1250)
    form = {"evidence[uncategorized_text]": "escalate_inquiry_evidence"}
    escalated = (await account.ask("POST", f"/v1/disputes/{inquiry['id']}", form)).json
    assert escalated["status"] == "needs_response"
    assert [row["net"] for row in escalated["balance_transactions"]] == [-1250 - DISPUTE_FEE]


async def test_any_charge_can_be_disputed_by_hand_and_moves_only_as_the_table_allows(account: Account) -> None:
    intent = await paid(account)
    dispute = await control(account, "POST", "disputes", {"payment_intent": intent, "reason": "duplicate", "amount": 500})
    for to in DisputeStatus:
        async with account.session.post(f"{account.url}/_control/disputes/{dispute['id']}", json={"status": to}) as answer:
            assert (answer.status == 200) is (to in DISPUTE_MOVES[DisputeStatus(dispute["status"])])
            if answer.status == 200:
                dispute = await answer.json()
    assert (dispute["status"], dispute["amount"], dispute["reason"]) == ("won", 500, "duplicate")


# --- Captures and time --------------------------------------------------------------------------------------------


async def test_several_captures_each_have_their_transaction_and_the_last_releases_the_rest(account: Account) -> None:
    intent = (await account.create(confirm="true", payment_method=VISA, **SEVERAL)).json["id"]
    capture = f"{INTENTS}/{intent}/capture"
    first = (await account.ask("POST", capture, {"amount_to_capture": "400", "final_capture": "false"})).json
    second = (await account.ask("POST", capture, {"amount_to_capture": "350", "final_capture": "false"})).json
    assert [(step["status"], step["amount_received"], step["amount_capturable"]) for step in (first, second)] == [
        ("requires_capture", 400, 850),
        ("requires_capture", 750, 500),
    ]
    assert (await account.ask("POST", f"{INTENTS}/{intent}/cancel")).error["code"] == "payment_intent_unexpected_state"
    closed = (await account.ask("POST", capture, {"amount_to_capture": "0", "expand[]": "latest_charge"})).json
    assert (closed["status"], closed["amount_received"], closed["amount_capturable"]) == ("succeeded", 750, 0)
    assert (closed["latest_charge"]["captured"], closed["latest_charge"]["amount_refunded"]) == (True, 0)
    source = {"source": closed["latest_charge"]["id"]}
    rows = (await account.ask("GET", "/v1/balance_transactions", source)).json["data"]
    assert [(row["amount"], row["fee"]) for row in rows] == [(350, charge_fee(350)), (400, charge_fee(400))]

    single = (await account.create(confirm="true", payment_method=VISA)).json["id"]
    form = {"amount_to_capture": "400", "final_capture": "false"}
    assert (await account.ask("POST", f"{INTENTS}/{single}/capture", form)).error["param"] == "final_capture"


async def test_a_hold_lapses_when_its_time_has_come_and_not_before(start: Callable[[Path], Process], tmp_path: Path) -> None:
    """The clock is the fake's own and goes only forward; also after a restart, and idempotency keys age with it."""
    running = start(tmp_path / "journal")
    async with account_at(running.url, "sk_test_clock") as account:
        held = (await account.create("k1", confirm="true", payment_method=VISA)).json["id"]
        part = (await account.create(confirm="true", payment_method=VISA, **SEVERAL)).json["id"]
        await account.ask("POST", f"{INTENTS}/{part}/capture", {"amount_to_capture": "400", "final_capture": "false"})
        disputed = await paid(account, "pm_card_createDispute")
        await control(account, "POST", "clock", {"advance_seconds": HOLD_SECONDS - 60})
        assert (await account.ask("GET", f"{INTENTS}/{held}")).json["status"] == "requires_capture"
        assert (await account.create("k1", amount="7")).status == 200  # a day later the key is new
    running.kill()
    running = start(running.state)
    async with account_at(running.url, "sk_test_clock") as account:
        await control(account, "POST", "clock", {"advance_seconds": 60})
        lapsed = (await account.ask("GET", f"{INTENTS}/{held}", {"expand[]": "latest_charge"})).json
        assert (lapsed["status"], lapsed["cancellation_reason"]) == ("canceled", "expired")
        assert (lapsed["latest_charge"]["refunded"], lapsed["latest_charge"]["captured"]) == (False, False)
        kept = (await account.ask("GET", f"{INTENTS}/{part}")).json
        assert (kept["status"], kept["amount_received"]) == ("succeeded", 400)
        await control(account, "POST", "clock", {"advance_seconds": HOLD_SECONDS})
        (dispute,) = (await account.ask("GET", "/v1/disputes", {"payment_intent": disputed})).json["data"]
        assert dispute["status"] == "lost"


async def test_refunds_disputes_and_the_balance_outlive_a_kill(start: Callable[[Path], Process], tmp_path: Path) -> None:
    running = start(tmp_path / "journal")
    paths = ("/v1/refunds", "/v1/disputes", "/v1/balance_transactions", "/v1/events", "/v1/charges", INTENTS)
    async with account_at(running.url, "sk_test_kill") as account:
        await refund(account, await paid(account), 100)
        await paid(account, "pm_card_createMultipleDisputes")
        late = (await refund(account, await paid(account, "pm_card_pendingRefund"))).json["id"]
        before = [(await account.ask("GET", path, {"limit": "100"})).json for path in paths]
    running.kill()
    running = start(running.state)
    async with account_at(running.url, "sk_test_kill") as account:
        after = [(await account.ask("GET", path, {"limit": "100"})).json for path in paths[1:3]]
        assert after == before[1:3]
        assert [row["id"] for row in before[1]["data"]] == list(dict.fromkeys(row["id"] for row in before[1]["data"]))
        assert len(before[1]["data"]) == 2
        await eventually(account, f"/v1/refunds/{late}", status="succeeded")
        events = (await account.ask("GET", "/v1/events", {"limit": "100"})).json["data"]
        assert [row for row in events if row["id"] in {old["id"] for old in before[3]["data"]}] == before[3]["data"]


# --- The buyer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", [card for card in CARDS.values() if card.error_code and card.challenge == "never"])
async def test_each_declining_card_gives_the_code_stripe_documents(account: Account, card: Any) -> None:
    error = (await account.create(confirm="true", payment_method=card.payment_method)).error
    assert (error["type"], error["code"], error["decline_code"]) == ("card_error", card.error_code, card.decline_code)


async def test_a_challenge_is_held_on_a_page_that_leads_back(account: Account) -> None:
    """`redirect_to_url` with a way back, and what the buyer's two buttons do."""
    outcomes = {}
    for outcome in ("succeed", "fail"):
        form = {
            "confirm": "true",
            "payment_method": "pm_card_threeDSecure2Required",
            "return_url": "https://shop.example/back?a=1",
        }
        intent = (await account.create(**form)).json
        action = intent["next_action"]
        assert (intent["status"], action["type"]) == ("requires_action", "redirect_to_url")
        assert intent["latest_charge"] is None
        page = action["redirect_to_url"]["url"]
        async with account.session.get(page) as shown:
            text = await shown.text()
            assert (text.count("<button"), intent["client_secret"] in text) == (2, False)
        async with account.session.post(page, data={"outcome": outcome}, allow_redirects=False) as led:
            assert led.status == 303
            outcomes[outcome] = led.headers["Location"].partition("&redirect_status=")[2]
        async with account.session.post(page, data={"outcome": "succeed"}) as late:
            assert late.status == 409
        async with account.session.get(page.partition("?")[0]) as stranger:
            assert stranger.status == 404
        after = (await account.ask("GET", f"{INTENTS}/{intent['id']}")).json
        assert after["status"] == {"succeed": "requires_capture", "fail": "requires_payment_method"}[outcome]
    assert outcomes == {"succeed": "succeeded", "fail": "failed"}


async def test_a_challenge_may_be_refused_demanded_or_followed_by_a_decline(account: Account) -> None:
    required = {"confirm": "true", "payment_method": "pm_card_authenticationRequired"}
    for absent in ({"off_session": "true"}, {"error_on_requires_action": "true"}):
        assert (await account.create(**required, **absent)).error["code"] == "authentication_required"
    asked = {"payment_method_options[card][request_three_d_secure]": "any"}
    optional = {"confirm": "true", "payment_method": "pm_card_threeDSecureOptional"}
    assert (await account.create(**optional)).json["status"] == "requires_capture"
    assert (await account.create(**optional, **asked)).json["next_action"]["type"] == "use_stripe_sdk"

    doomed = (await account.create(confirm="true", payment_method="pm_card_threeDSecureRequiredChargeDeclined")).json["id"]
    answer = await control(account, "POST", f"payment_intents/{doomed}/authentication", {"outcome": "succeed"})
    assert (answer["status"], answer["last_payment_error"]["code"]) == ("requires_payment_method", "card_declined")

    by_server = (await account.create(**required, confirmation_method="manual")).json["id"]
    answer = await control(account, "POST", f"payment_intents/{by_server}/authentication", {"outcome": "succeed"})
    assert answer["status"] == "requires_confirmation"
    confirmed = (await account.ask("POST", f"{INTENTS}/{by_server}/confirm", {"expand[]": "latest_charge"})).json
    assert confirmed["status"] == "requires_capture"
    assert confirmed["latest_charge"]["payment_method_details"]["card"]["three_d_secure"]["result"] == "authenticated"


async def test_the_buyers_browser_confirms_with_the_clients_secret_and_sees_only_its_share(account: Account) -> None:
    """As Stripe.js does: the publishable key as a parameter, and no access to anything else."""
    intent = (await account.create(**{"metadata[secret]": "internal"})).json
    publishable = account.api_key.replace("sk_", "pk_")
    client = stripe.StripeClient(
        publishable, base_addresses={"api": account.url}, http_client=account.transport, max_network_retries=0
    ).v1.payment_intents
    with pytest.raises(stripe.InvalidRequestError):
        await client.confirm_async(intent["id"], {"payment_method": VISA})
    with pytest.raises(stripe.AuthenticationError):
        await client.list_async()
    form = {"key": publishable, "client_secret": intent["client_secret"], "payment_method": POOR}
    for card, status in ((POOR, 402), (VISA, 200)):
        async with account.session.post(
            f"{account.url}{INTENTS}/{intent['id']}/confirm", data=form | {"payment_method": card}
        ) as answer:
            body = await answer.json()
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, "*")
        seen = body["error"]["payment_intent"] if status == 402 else body
        assert {"metadata", "latest_charge", "amount_capturable"}.isdisjoint(seen)
    assert body["status"] == "requires_capture"


# --- Limits, and the command --------------------------------------------------------------------------------------


async def test_limits_answer_429_with_the_reason_before_anything_is_stored(account: Account) -> None:
    """So slow that one request is all a bucket gives while the test runs."""
    await control(account, "PUT", "limits", {"endpoint_per_second": 0.001, "endpoints": {"GET /v1/balance": 1000}})
    try:
        answers = [await account.create(f"k{number}") for number in range(3)]
        assert [answer.status for answer in answers] == [200, 429, 429]
        assert (answers[1].error["code"], answers[1].headers["stripe-rate-limited-reason"]) == ("rate_limit", "endpoint-rate")
        assert [(await account.ask("GET", "/v1/balance")).status for _ in range(5)] == [200] * 5
        await control(account, "PUT", "limits", {"account_per_second": 0.001})
        whole = [await account.ask("GET", path) for path in ("/v1/balance", "/v1/account")]
        assert [(answer.status, answer.headers.get("stripe-rate-limited-reason")) for answer in whole] == [
            (200, None),
            (429, "global-rate"),
        ]
    finally:
        await control(account, "DELETE", "limits")
    again = await account.create("k1")
    assert (again.status, "idempotent-replayed" in again.headers) == (200, False)


def test_a_mistaken_plan_is_refused_by_up_before_anything_starts(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('[{"fault": "earthquake"}]')
    command = [sys.executable, "-m", "deploy.cli", "up", "--faults", str(plan)]
    environment = {"PATH": "/usr/bin:/bin", "CARTWRIGHT_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "earthquake" in done.stderr) == (2, True)
    assert not (tmp_path / "home").exists()
