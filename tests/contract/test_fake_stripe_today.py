"""What Stripe changed of late, and the small verbs around a payment, over real HTTP."""

from __future__ import annotations

import pytest
import stripe

from deploy.local.fake_stripe.cards import CARDS
from tests.shared.fakes import INTENTS, VISA, Account, control


async def held(account: Account, card: str = VISA, **form: str) -> str:
    answer = await account.create(confirm="true", payment_method=card, **form)
    assert answer.status == 200, answer.raw
    found: str = answer.json["id"]
    return found


async def test_what_is_let_go_of_and_was_never_taken_is_no_refund(account: Account) -> None:
    """docs.stripe.com/changelog/basil/2025-03-31: no refund, no `charge.refunded`, one balance transaction."""
    canceled, part = await held(account), await held(account)
    await account.ask("POST", f"{INTENTS}/{canceled}/cancel")
    await account.ask("POST", f"{INTENTS}/{part}/capture", {"amount_to_capture": "400"})
    of = {
        intent: (await account.ask("GET", "/v1/charges", {"payment_intent": intent})).json["data"][0]
        for intent in (canceled, part)
    }
    told = {intent: (of[intent]["amount_captured"], of[intent]["amount_refunded"], of[intent]["refunded"]) for intent in of}
    assert told == {canceled: (0, 0, False), part: (400, 0, False)}
    assert (await account.ask("GET", "/v1/refunds")).json["data"] == []
    assert [row["amount"] for row in (await account.ask("GET", "/v1/balance_transactions")).json["data"]] == [400]
    assert (await account.ask("GET", "/v1/events", {"type": "charge.refunded"})).json["data"] == []
    await account.ask("POST", "/v1/refunds", {"payment_intent": part})
    charge = (await account.ask("GET", f"/v1/charges/{of[part]['id']}")).json
    assert (charge["amount_refunded"], charge["refunded"]) == (400, True)


async def test_a_charge_may_be_refunded_while_it_is_asked_about_and_after_its_dispute_is_won(account: Account) -> None:
    for card, to, may in (
        ("pm_card_createDisputeInquiry", None, True),
        ("pm_card_createDispute", None, False),
        ("pm_card_createDispute", "won", True),
        ("pm_card_createDispute", "lost", False),
    ):
        intent = await held(account, card)
        await account.ask("POST", f"{INTENTS}/{intent}/capture")
        [case] = (await account.ask("GET", "/v1/disputes", {"payment_intent": intent})).json["data"]
        if to:
            case = await control(account, "POST", f"disputes/{case['id']}", {"status": to})
        refunded = await account.ask("POST", "/v1/refunds", {"payment_intent": intent, "amount": "1"})
        assert (case["is_charge_refundable"], refunded.status == 200) == (may, may), (card, to)


async def test_what_is_said_of_an_object_may_be_changed_and_its_amount_only_before_it_was_put_to_the_card(
    account: Account,
) -> None:
    waiting = (await account.create(**{"metadata[a]": "1", "metadata[b]": "2"})).json["id"]
    form = {"metadata[a]": "", "metadata[c]": "3", "description": "tea", "amount": "1300"}
    updated = (await account.ask("POST", f"{INTENTS}/{waiting}", form)).json
    assert (updated["metadata"], updated["description"], updated["amount"]) == ({"b": "2", "c": "3"}, "tea", 1300)
    cleared = (await account.ask("POST", f"{INTENTS}/{waiting}", {"metadata": "", "description": ""})).json
    assert (cleared["metadata"], cleared["description"], cleared["amount"]) == ({}, None, 1300)

    intent = await held(account, **{"metadata[a]": "1"})
    refused = await account.ask("POST", f"{INTENTS}/{intent}", {"amount": "1"})
    assert (refused.status, refused.error["code"]) == (400, "payment_intent_unexpected_state")
    captured = (await account.ask("POST", f"{INTENTS}/{intent}/capture")).json
    charge = await account.sdk.charges.update_async(captured["latest_charge"], {"description": "tea", "metadata": {"z": "9"}})
    assert (charge.description, charge.metadata.to_dict()) == ("tea", {"a": "1", "z": "9"})
    made = await account.sdk.refunds.create_async({"payment_intent": intent, "amount": 5})
    refund = await account.sdk.refunds.update_async(made.id, {"metadata": {"why": "broken"}})
    assert refund.metadata is not None
    assert (refund.metadata.to_dict(), refund.status, refund.amount) == ({"why": "broken"}, "succeeded", 5)
    kinds = [event["type"] for event in (await account.ask("GET", "/v1/events")).json["data"]]
    assert {"charge.updated", "refund.updated"} <= set(kinds)
    assert "payment_intent.updated" not in kinds, "Stripe has no such event"
    with pytest.raises(stripe.InvalidRequestError):
        await account.sdk.refunds.update_async("re_none", {"metadata": {"a": "1"}})


@pytest.mark.parametrize("kind", ["payment_intents", "charges"])
async def test_searching_is_told_to_be_absent_instead_of_finding_nothing(account: Account, kind: str) -> None:
    answer = await account.ask("GET", f"/v1/{kind}/search", {"query": "metadata['a']:'1'"})
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert "not served" in answer.error["message"]


@pytest.mark.parametrize(
    ("ending", "code", "decline_code", "param", "advice"),
    [
        ("", "card_declined", "generic_decline", None, "try_again_later"),
        ("InsufficientFunds", "card_declined", "insufficient_funds", None, "try_again_later"),
        ("LostCard", "card_declined", "lost_card", None, "do_not_try_again"),
        ("StolenCard", "card_declined", "stolen_card", None, "do_not_try_again"),
        ("VelocityLimitExceeded", "card_declined", "card_velocity_exceeded", None, "try_again_later"),
        ("Fraudulent", "card_declined", "fraudulent", None, None),
        ("ExpiredCard", "expired_card", "expired_card", "exp_month", "confirm_card_data"),
        ("IncorrectCvc", "incorrect_cvc", "incorrect_cvc", "cvc", "confirm_card_data"),
        ("ProcessingError", "processing_error", "processing_error", None, "try_again_later"),
    ],
)
async def test_a_declining_card_is_known_by_both_its_spellings_and_says_what_stripe_says(
    account: Account, ending: str, code: str, decline_code: str, param: str | None, advice: str | None
) -> None:
    for spelling in ("pm_card_chargeDeclined", "pm_card_visa_chargeDeclined"):
        error = (await account.create(confirm="true", payment_method=spelling + ending)).error
        said = (error["type"], error["code"], error["decline_code"], error.get("param"), error.get("advice_code"))
        assert said == ("card_error", code, decline_code, param, advice)
        assert error["payment_method"]["id"] == spelling + ending


async def test_every_card_that_pays_pays_and_tells_its_country_its_risk_and_its_checks(account: Account) -> None:
    for card in CARDS.values():
        if card.error_code is not None or card.challenge in {"always", "on-session"}:
            continue
        intent = await held(account, card.payment_method)
        charge = (await account.ask("POST", f"{INTENTS}/{intent}/capture", {"expand[]": "latest_charge"})).json["latest_charge"]
        shown = charge["payment_method_details"]["card"]
        assert (shown["country"], shown["last4"], charge["outcome"]["risk_level"]) == (card.country, card.last4, card.risk)
        assert card.checks.items() <= shown["checks"].items()
    on_session = (await account.create(confirm="true", payment_method="pm_card_authenticationRequiredSetupForOffSession")).json
    assert on_session["status"] == "requires_action"
    assert await held(account, "pm_card_authenticationRequiredSetupForOffSession", off_session="true")
    at_once = await held(account, "pm_card_bypassPending", amount="7777")
    await account.ask("POST", f"{INTENTS}/{at_once}/capture")
    rows = (await account.ask("GET", "/v1/balance_transactions", {"limit": "1"})).json["data"]
    assert [(row["amount"], row["status"]) for row in rows] == [(7777, "available")]


async def test_what_cannot_be_refunded_or_authenticated_is_refused_in_stripes_words(account: Account) -> None:
    refused = await account.ask("POST", "/v1/refunds", {"payment_intent": await held(account)})
    assert (refused.status, refused.error.get("code"), refused.error.get("param")) == (400, None, None)
    assert "You must cancel the PaymentIntent" in refused.error["message"]
    told = {}
    for absent in ("off_session", "error_on_requires_action"):
        form = {"confirm": "true", "payment_method": "pm_card_authenticationRequired", absent: "true"}
        error = (await account.create(**form)).error
        assert error["code"] == "authentication_required"
        told[absent] = error["decline_code"]
    assert told == {
        "off_session": "authentication_required",
        "error_on_requires_action": "authentication_not_handled",
    }
