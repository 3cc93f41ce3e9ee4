"""Provider accounts: a secret goes in and never comes out, and what is one tenant's is no other's."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from structlog.testing import capture_logs

from libs.common.auth import CLIENT, PLATFORM_OPERATOR, SHOPPER
from libs.common.clock import PLATFORM
from libs.common.sealing import MasterKey, MasterKeys, SealError
from services.payments.gateway.accounts import Credentials, credentials_of
from tests.integration.till_edge import ACCOUNT, NEW, NEXT_SECRET, OLD, OWN_SECRET, SHARED_SECRET, Edge, a_key, pay, payments_edge
from tests.shared.callers import Person, onboard, problem
from tests.shared.places import Places


@pytest.fixture
async def payments(shared: Places, fake: str) -> AsyncIterator[Edge]:
    async with payments_edge(shared("payments"), fake, MasterKeys(OLD)) as made:
        yield made


async def test_a_tenants_key_goes_in_and_never_comes_out_and_its_payments_are_made_with_it(payments: Edge) -> None:
    assert problem(await payments.ask("GET", ACCOUNT))["code"] == "provider-account-not-found"
    api_key = a_key()
    with capture_logs() as lines:
        put = await payments.put(api_key=api_key, webhook_secrets=[OWN_SECRET])
    assert put.status_code == 200, put.text
    shown = put.json()
    assert (shown["provider"], shown["api_key"], shown["webhook_secrets"], shown["livemode"]) == (
        "stripe",
        f"…{api_key[-4:]}",
        [f"…{OWN_SECRET[-4:]}"],
        False,
    )
    read = await payments.ask("GET", ACCOUNT)
    assert read.json() == shown
    assert read.headers["cache-control"] == "no-store"
    stored = await payments.stored()
    places = [put.text, read.text, str(put.headers), repr(lines), repr(stored)]
    assert not [secret for secret in (api_key, OWN_SECRET) for place in places if secret in place]
    gateway = await payments.gateways.of(payments.tenant_id)
    assert await gateway.account() == await payments.gateways.trial(Credentials(api_key)).account()
    elsewhere = await payments.gateways.of(await onboard(payments.shell))
    assert await elsewhere.account() == await payments.gateways.trial(Credentials(payments.platform_key)).account()


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({}, 422, "schema"),
        ({"webhook_secrets": []}, 422, "api-key-or-account"),
        ({"api_key": "sk_test_12345678", "account": "acct_1234", "webhook_secrets": []}, 422, "api-key-or-account"),
        ({"api_key": "sk_test_12345678", "webhook_secrets": []}, 422, "webhook-secret-missing"),
        ({"api_key": "pk_test_12345678", "webhook_secrets": [OWN_SECRET]}, 422, "schema"),
        ({"api_key": "canary sk_test_12345678", "webhook_secrets": [OWN_SECRET]}, 422, "schema"),
        ({"api_key": "sk_test_12345678", "webhook_secrets": ["canary"]}, 422, "schema"),
        ({"api_key": "sk_test_12345678", "webhook_secrets": [OWN_SECRET, NEXT_SECRET, SHARED_SECRET]}, 422, "schema"),
        ({"account": "shop", "webhook_secrets": []}, 422, "schema"),
        ({"api_key": "sk_test_12345678", "webhook_secrets": [OWN_SECRET], "canary": 1}, 422, "schema"),
        ({"api_key": "sk_live_canary12345678", "webhook_secrets": [OWN_SECRET]}, 422, "provider-key-refused"),
    ],
)
async def test_what_cannot_be_an_account_is_refused_and_repeated_to_nobody(
    payments: Edge, given: dict[str, Any], status: int, code: str
) -> None:
    with capture_logs() as lines:
        refused = await payments.put(**given)
    assert (refused.status_code, problem(refused)["code"]) == (status, code)
    told = refused.text + repr(lines)
    assert not any(secret in told for secret in ("12345678", OWN_SECRET, "sk_live_canary"))
    assert "canary" not in told.replace("/canary", "")
    assert (await payments.ask("GET", ACCOUNT)).status_code == 404


async def test_only_who_may_change_accounts_may_and_a_shopper_may_not(payments: Edge) -> None:
    assert (await payments.ask("PUT", ACCOUNT, role=SHOPPER, json={"webhook_secrets": []})).status_code == 403
    assert (await payments.ask("GET", ACCOUNT, role=SHOPPER)).status_code == 403
    for role in (CLIENT, SHOPPER):
        rewrap = await payments.ask("POST", "/ops/provider-accounts/rewrap", role=role)
        assert rewrap.status_code == 403, "a tenant's own client is no operator of the platform"


async def test_what_is_sealed_for_one_tenant_opens_for_no_other(payments: Edge) -> None:
    other = await onboard(payments.shell)
    await payments.put(api_key=a_key(), webhook_secrets=[OWN_SECRET])
    await payments.put(other, api_key=a_key(), webhook_secrets=[OWN_SECRET])
    admin = await payments.place.as_admin()
    try:
        await admin.execute(
            """UPDATE provider_account a SET sealed_api_key = b.sealed_api_key, wrapped_key = b.wrapped_key
            FROM provider_account b WHERE a.tenant_id = $1 AND b.tenant_id = $2""",
            other,
            payments.tenant_id,
        )
    finally:
        await admin.close()
    with pytest.raises(SealError):
        credentials_of(await payments.stored(other), Credentials("sk_test_platform"), MasterKeys(OLD))


async def test_a_new_key_for_the_same_account_is_taken_and_another_account_only_before_the_first_payment(payments: Edge) -> None:
    """The fake has one account a key, so another key is another account; on the platform's behalf the account has a name."""
    first, second = await payments.connect(), await payments.connect()
    assert (await payments.put(account=first, webhook_secrets=[])).status_code == 200
    assert (await payments.put(account=second, webhook_secrets=[])).status_code == 200
    await pay(payments)
    again = await payments.put(account=second, webhook_secrets=[NEXT_SECRET])
    assert (again.status_code, again.json()["webhook_secrets"]) == (200, [f"…{NEXT_SECRET[-4:]}"])
    moved = await payments.put(account=first, webhook_secrets=[])
    assert (moved.status_code, problem(moved)["code"]) == (409, "provider-account-in-use")
    assert (await payments.stored()).account_id == second


async def test_the_platform_acts_for_an_account_on_behalf_of_one_tenant_and_of_no_second_one(payments: Edge) -> None:
    account, other = await payments.connect(), await onboard(payments.shell)
    assert (await payments.put(account=account, webhook_secrets=[])).status_code == 200
    foreign = await payments.put(other, account=account, webhook_secrets=[])
    absent = await payments.put(other, account=f"acct_{uuid4().hex}", webhook_secrets=[])
    unused = await payments.put(other, account=await payments.connect(), webhook_secrets=[])
    await payments.connect(account, tenant_id=other)
    taken = await payments.put(other, account=account, webhook_secrets=[])
    told = [(each.status_code, problem(each) | {"request_id": ""}) for each in (foreign, absent, unused, taken)]
    assert (told[0][0], told[0][1]["code"]) == (422, "account-not-proven")
    assert [each for each in told if each != told[0]] == [], "nobody learns which accounts there are"
    assert (await payments.ask("GET", ACCOUNT, tenant_id=other)).status_code == 404


async def test_no_key_brings_a_tenant_the_account_that_another_has_not_even_at_the_same_time(payments: Edge) -> None:
    api_key, tenants = a_key(), [await onboard(payments.shell) for _ in range(6)]
    answers = await asyncio.gather(
        *(payments.put(tenant_id, api_key=api_key, webhook_secrets=[OWN_SECRET]) for tenant_id in tenants)
    )
    assert sorted(answer.status_code for answer in answers) == [200, *[422] * 5]
    assert {problem(answer)["code"] for answer in answers if answer.status_code == 422} == {"account-not-proven"}
    [owner] = [tenant_id for tenant_id, answer in zip(tenants, answers, strict=True) if answer.status_code == 200]
    assert (await payments.put(owner, api_key=api_key, webhook_secrets=[NEXT_SECRET])).status_code == 200


async def test_a_connection_is_its_beginners_alone_for_ten_minutes_and_one_use(payments: Edge) -> None:
    person, other = Person(payments.tenant_id, role=CLIENT), await onboard(payments.shell)
    begun = await payments.client.post(f"{ACCOUNT}/connections", headers=person.authorization)
    told = begun.json()
    assert begun.headers["cache-control"] == "no-store"
    assert parse_qs(urlsplit(told["authorize_url"]).query)["state"] == [told["state"]]
    async with httpx.AsyncClient() as browser:
        page = await browser.get(told["authorize_url"])
    [code] = re.findall(r"ac_\w+", page.text)
    for stranger in (replace(person, tenant_id=other), Person(payments.tenant_id, role=CLIENT)):
        refused = await payments.complete(stranger, told["state"], code)
        assert (refused.status_code, problem(refused)["code"]) == (404, "connection-not-found")
    connected = await payments.complete(person, told["state"], code)
    assert (connected.status_code, connected.json()["account"][:5]) == (200, "acct_")
    assert (await payments.complete(person, told["state"], await payments.code())).status_code == 404
    reused = await payments.complete(person, await payments.begin(person), code)
    assert (reused.status_code, problem(reused)["code"]) == (422, "account-not-proven")
    late = await payments.begin(person)
    admin = await payments.place.as_admin()
    await admin.execute("UPDATE account_connection SET expires_at = now() WHERE used_at IS NULL")
    kept = repr(await admin.fetch("SELECT * FROM account_connection"))
    await admin.close()
    assert late not in kept
    assert (await payments.complete(person, late, await payments.code())).status_code == 404
    shopper = await payments.ask("POST", f"{ACCOUNT}/connections", role=SHOPPER)
    assert shopper.status_code == 403


async def test_a_platform_without_connections_says_so(payments: Edge) -> None:
    payments.gateways._connect_client_id = None
    refused = await payments.ask("POST", f"{ACCOUNT}/connections")
    assert (refused.status_code, problem(refused)["code"]) == (409, "connect-not-set-up")


async def test_a_rotation_of_the_master_key_wraps_every_account_anew_and_nothing_stands_still(empty: Places, fake: str) -> None:
    keys = [a_key() for _ in range(5)]
    async with payments_edge(empty("payments"), fake, MasterKeys(OLD)) as before:
        tenants = [await onboard(before.shell) for _ in keys]
        for tenant_id, api_key in zip(tenants, keys, strict=True):
            assert (await before.put(tenant_id, api_key=api_key, webhook_secrets=[OWN_SECRET])).status_code == 200
        sealed = [(await before.stored(tenant_id)).sealed_api_key for tenant_id in tenants]
    async with payments_edge(empty("payments"), fake, MasterKeys(NEW, OLD)) as during:
        await during.gateways.of(tenants[0])
        rotate = ("POST", "/ops/provider-accounts/rewrap")
        first = await during.ask(*rotate, tenant_id=PLATFORM, role=PLATFORM_OPERATOR)
        again = await during.ask(*rotate, tenant_id=PLATFORM, role=PLATFORM_OPERATOR)
        assert (first.json(), again.json()) == ({"rewrapped": 5, "failed": 0}, {"rewrapped": 0, "failed": 0})
        assert [(await during.stored(tenant_id)).sealed_api_key for tenant_id in tenants] == sealed
        for tenant_id, api_key in zip(tenants, keys, strict=True):
            after = credentials_of(await during.stored(tenant_id), Credentials("sk_test_platform"), MasterKeys(NEW))
            assert after.api_key == api_key
            with pytest.raises(SealError):
                credentials_of(await during.stored(tenant_id), Credentials("sk_test_platform"), MasterKeys(OLD))
    stranger = MasterKeys(MasterKey(os.urandom(32)))
    async with payments_edge(empty("payments"), fake, stranger) as lost:
        nothing = await lost.ask(*rotate, tenant_id=PLATFORM, role=PLATFORM_OPERATOR)
        assert nothing.json() == {"rewrapped": 0, "failed": 5}, "said, not hidden, and nothing is overwritten"
        assert (await lost.stored(tenants[0])).master_key_id == NEW.id
