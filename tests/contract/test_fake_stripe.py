"""The fake Stripe against what Stripe documents, over real HTTP: the official SDK where it can say it, raw where not.

Each rule of docs.stripe.com/api/idempotent_requests stands as the docstring of the test that holds it.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import pytest
import stripe

from deploy.local.fake_stripe.api import SERVED
from deploy.local.fake_stripe.cards import CARDS
from deploy.local.fake_stripe.errors import StripeError
from deploy.local.fake_stripe.faults import Fault
from deploy.local.fake_stripe.idempotency import LIFETIME_SECONDS, Ask, Keys, Stored
from deploy.local.fake_stripe.store import Store
from tests.shared.fakes import BASIC, INTENTS, POOR, ROOT, VISA, Account, Process, account_at, control


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
    await account.faults({"match": {"metadata": {"order": account.api_key}}, "fault": "latency", "delay_ms": 3_000})
    form = {"metadata[order]": account.api_key}
    first = asyncio.create_task(account.create("k1", **form))
    async with asyncio.timeout(60):
        while not (await control(account, "GET", "faults"))["rules"][0]["struck"]:
            await asyncio.sleep(0.05)
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


def test_a_key_is_new_again_after_24_hours_and_never_longer_than_255_characters(tmp_path: Path) -> None:
    """Keys have an end and a size.

    "You can remove keys from the system automatically after they're at least 24 hours old. We generate a new
    request if a key is reused after the original is pruned." "...keys are up to 255 characters long."
    """
    store = Store(tmp_path / "state")
    keys, first, other = Keys(store, "acct_x"), Ask("k1", INTENTS, "a"), Ask("k1", INTENTS, "b")
    assert keys.begin(first, now=1000) is None
    keys.store(Stored(first, 200, "req_1", 1000, b"{}"))
    keys.end(first)

    assert keys.begin(first, now=1000 + LIFETIME_SECONDS - 1) is not None
    with pytest.raises(StripeError):
        keys.begin(other, now=1000 + LIFETIME_SECONDS - 1)
    assert keys.begin(other, now=1000 + LIFETIME_SECONDS) is None
    assert keys.begin(replace(first, key="k" * 255), now=1000) is None
    with pytest.raises(StripeError):
        keys.begin(replace(first, key="k" * 256), now=1000)
    store.close()


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
