"""Which client a tenant's calls get: its own account's or the platform's, soon after that changes, and asked for once."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.common.errors import UnavailableError
from libs.common.sealing import MasterKey, MasterKeys, SealError
from services.payments.domain.provider.account import (
    LIVE,
    STRIPE,
    TEST,
    UNLIMITED,
    Limits,
    ProviderAccount,
    SeenAccount,
    TenantAccount,
)
from services.payments.domain.provider.outcome import Rejected, Throttled, Unknown
from services.payments.gateway.accounts import FRESH_SECONDS, Credentials, Gateways, seal_account, webhook_secrets_of
from services.payments.gateway.limits import Buckets, Guard
from services.payments.gateway.protocol import PaymentGateway
from services.payments.gateway.stripe import Stripe

KEYS = MasterKeys(MasterKey(os.urandom(32)))
PLATFORM = Credentials("sk_test_platform1")
NOW = datetime(2026, 11, 22, tzinfo=UTC)
OWN_LIMITS = {"provider_limits": {"per_second": 7, "endpoint_per_second": 3}}


def account(tenant_id: UUID, api_key: str | None, account_id: str | None = None) -> ProviderAccount:
    sealed = seal_account(tenant_id, STRIPE, api_key, ["whsec_one11111", "whsec_two22222"], KEYS)
    return ProviderAccount(
        tenant_id=tenant_id,
        version=1,
        provider=STRIPE,
        account_id=account_id,
        sealed_api_key=sealed.sealed_api_key,
        api_key_hint=sealed.api_key_hint,
        webhook_secrets=sealed.webhook_secrets,
        master_key_id=sealed.envelope.master_key_id,
        wrapped_key=sealed.envelope.wrapped_key,
        livemode=False,
        created_at=NOW,
        rotated_at=NOW,
    )


class Scene:
    """What is stored, and a clock. It notes with which credentials, guard and share each client was made."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stored: dict[UUID, TenantAccount | Exception | None] = {}
        self.loads: list[UUID] = []
        self.made: list[tuple[Credentials, Guard, Buckets | None]] = []
        self.stripe = Stripe("https://api.stripe.com")
        self.hold: asyncio.Event | None = None
        self.gateways = Gateways(self.load, self, platform=PLATFORM, master_keys=KEYS, clock=lambda: self.now)

    def default_limits(self, credentials: Credentials) -> Limits:
        return self.stripe.default_limits(credentials)

    def client(self, credentials: Credentials, guard: Guard, share: Buckets | None = None) -> PaymentGateway:
        self.made.append((credentials, guard, share))
        return self.stripe.client(credentials, guard, share)

    def authorize_url(self, client_id: str, state: str) -> str:
        return self.stripe.authorize_url(client_id, state)

    async def exchange(self, credentials: Credentials, code: str) -> SeenAccount | Rejected | Unknown | Throttled:
        return await self.stripe.exchange(credentials, code)

    async def close(self) -> None:
        await self.stripe.close()

    async def load(self, tenant_id: UUID) -> TenantAccount | None:
        self.loads.append(tenant_id)
        if self.hold is not None:
            await self.hold.wait()
        found = self.stored.get(tenant_id, TenantAccount(None, {}))
        if isinstance(found, Exception):
            raise found
        return found

    async def made_for(
        self, tenant_id: UUID, own: ProviderAccount | None, settings: Mapping[str, Any] | None = None
    ) -> tuple[Credentials, Guard, Buckets | None]:
        self.stored[tenant_id] = TenantAccount(own, settings or {})
        await self.gateways.of(tenant_id)
        return self.made[-1]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_tenant_pays_with_its_own_key_or_the_platforms_or_the_platforms_on_its_behalf(scene: Scene) -> None:
    own, behalf, none = uuid4(), uuid4(), uuid4()
    assert (await scene.made_for(own, account(own, "sk_live_own11111")))[0] == Credentials("sk_live_own11111")
    assert (await scene.made_for(behalf, account(behalf, None, "acct_1")))[0] == Credentials(PLATFORM.api_key, "acct_1")
    assert (await scene.made_for(none, None))[0] == PLATFORM
    assert not any("sk_" in repr(credentials) for credentials, _, _ in scene.made), "a key is in no text of them"


async def test_everybody_who_asks_at_once_waits_for_one_reading_and_it_holds_for_a_while(scene: Scene) -> None:
    tenant_id, scene.hold = uuid4(), asyncio.Event()
    asking = [asyncio.create_task(scene.gateways.of(tenant_id)) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    scene.hold.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError), "and it took nothing from the others"
    assert len(set(answers[1:])) == 1
    await scene.gateways.of(tenant_id)
    assert scene.loads == [tenant_id]
    scene.now += FRESH_SECONDS
    assert await scene.gateways.of(tenant_id) is answers[1], "read again, and the same"
    assert scene.loads == [tenant_id] * 2


async def test_an_account_is_remembered_for_a_while_read_anew_when_asked_and_a_stranger_is_never_remembered(scene: Scene) -> None:
    tenant_id = uuid4()
    before, after = (TenantAccount(account(tenant_id, f"sk_live_{each}11111"), {}) for each in ("old", "new"))
    scene.stored[tenant_id] = before
    assert await scene.gateways.account(tenant_id) == before
    scene.stored[tenant_id] = after
    assert await scene.gateways.account(tenant_id) == before
    assert await scene.gateways.account(tenant_id, anew=True) == after
    assert await scene.gateways.account(tenant_id) == after, "and so it is remembered"
    scene.stored[tenant_id] = None
    scene.now += FRESH_SECONDS
    assert [await scene.gateways.account(tenant_id) for _ in range(2)] == [None, None]
    assert scene.loads == [tenant_id] * 4


async def test_what_cannot_be_read_is_said_and_not_remembered(scene: Scene) -> None:
    tenant_id = uuid4()
    scene.stored[tenant_id] = UnavailableError("database-unavailable", "away")
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await scene.gateways.of(tenant_id)
    del scene.stored[tenant_id]
    assert await scene.gateways.of(tenant_id) is not None
    own = account(tenant_id, "sk_live_own11111")
    scene.stored[tenant_id] = TenantAccount(replace(own, tenant_id=uuid4()), {})
    scene.now += FRESH_SECONDS
    with pytest.raises(SealError):
        await scene.gateways.of(tenant_id)


async def test_a_rotated_key_is_used_soon_and_the_accounts_circuit_and_buckets_outlive_it(scene: Scene) -> None:
    tenant_id = uuid4()
    _, guard, _ = await scene.made_for(tenant_id, account(tenant_id, "sk_live_old11111", "acct_1"))
    scene.stored[tenant_id] = TenantAccount(account(tenant_id, "sk_live_new11111", "acct_1"), {})
    await scene.gateways.of(tenant_id)
    assert len(scene.made) == 1
    scene.now += FRESH_SECONDS
    await scene.gateways.of(tenant_id)
    credentials, after, _ = scene.made[-1]
    assert (credentials.api_key, after is guard) == ("sk_live_new11111", True)
    elsewhere = uuid4()
    _, other, _ = await scene.made_for(elsewhere, account(elsewhere, "sk_live_old11111", "acct_2"))
    assert other is not guard


async def test_limits_are_the_keys_mode_unless_the_tenant_says_more_and_on_the_platforms_account_its_share(scene: Scene) -> None:
    live, test, said, shared = (uuid4() for _ in range(4))
    limits = Limits(per_second=7, endpoint_per_second=3)

    async def of(tenant_id: UUID, api_key: str | None, settings: Mapping[str, Any]) -> tuple[Limits, Limits | None]:
        own = account(tenant_id, api_key) if api_key else None
        _, guard, share = await scene.made_for(tenant_id, own, settings)
        return guard.limits, share.limits if share else None

    assert await of(live, "rk_live_own11111", {}) == (LIVE, None)
    assert await of(test, "sk_test_own11111", {}) == (TEST, None)
    assert await of(said, "sk_live_own11111", OWN_LIMITS) == (limits, None)
    assert await of(shared, None, OWN_LIMITS) == (TEST, limits)
    assert Stripe("http://127.0.0.1:12111").default_limits(PLATFORM) == UNLIMITED


async def test_a_tenant_that_names_anothers_account_neither_slows_it_down_nor_closes_its_circuit(scene: Scene) -> None:
    owner, intruder = uuid4(), uuid4()
    _, guard, _ = await scene.made_for(owner, account(owner, None, "acct_1"))
    before = guard.limits
    _, other, _ = await scene.made_for(intruder, account(intruder, None, "acct_1"), OWN_LIMITS)
    assert other is not guard
    assert guard.limits == before != other.limits


def test_an_accounts_webhook_secrets_open_for_that_tenant_alone() -> None:
    own = account(uuid4(), "sk_live_own11111")
    assert webhook_secrets_of(own, KEYS) == ["whsec_one11111", "whsec_two22222"]
    assert "whsec" not in repr(own)
    with pytest.raises(SealError):
        webhook_secrets_of(replace(own, tenant_id=uuid4()), KEYS)
    with pytest.raises(SealError):
        webhook_secrets_of(own, MasterKeys(MasterKey(os.urandom(32))))
