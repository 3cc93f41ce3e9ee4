"""Provider accounts: a secret goes in and never comes out, and what is one tenant's is no other's."""

import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from libs.common.auth import CLIENT, PLATFORM_OPERATOR, SHOPPER
from libs.common.clock import PLATFORM
from libs.common.sealing import MasterKey, MasterKeys, SealError
from services.payments.gateway.accounts import Credentials, credentials_of
from tests.integration.till_edge import ACCOUNT, NEW, NEXT_SECRET, OLD, OWN_SECRET, SHARED_SECRET, Edge, a_key, pay, payments_edge
from tests.shared.callers import onboard, problem
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
    assert (await payments.put(account="acct_first1", webhook_secrets=[])).status_code == 200
    assert (await payments.put(account="acct_second2", webhook_secrets=[])).status_code == 200
    await pay(payments)
    again = await payments.put(account="acct_second2", webhook_secrets=[NEXT_SECRET])
    assert (again.status_code, again.json()["webhook_secrets"]) == (200, [f"…{NEXT_SECRET[-4:]}"])
    moved = await payments.put(account="acct_first1", webhook_secrets=[])
    assert (moved.status_code, problem(moved)["code"]) == (409, "provider-account-in-use")
    assert (await payments.stored()).account_id == "acct_second2"


async def test_the_platform_acts_for_an_account_on_behalf_of_one_tenant_and_of_no_second_one(payments: Edge) -> None:
    account, other = f"acct_{uuid4().hex}", await onboard(payments.shell)
    assert (await payments.put(account=account, webhook_secrets=[])).status_code == 200
    taken = await payments.put(other, account=account, webhook_secrets=[])
    assert (taken.status_code, problem(taken)["code"]) == (409, "account-taken")


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
