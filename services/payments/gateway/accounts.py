"""Whose account a call goes to: one client for each provider account, behind that account's limits and circuit.

A tenant without an account of its own uses the platform's. What is known of a tenant is read again every few seconds, so
that a rotated key is soon used everywhere; the connections are shared by all.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from libs.common.errors import ConflictError
from libs.common.sealing import Envelope
from services.payments.domain.provider.account import TenantAccount, WebhookSecret, limits_of, place_of
from services.payments.gateway.limits import Buckets, Guard

if TYPE_CHECKING:
    from pydantic import SecretStr

    from libs.common.sealing import MasterKeys
    from services.payments.domain.provider.account import Limits, ProviderAccount, SeenAccount
    from services.payments.domain.provider.outcome import Rejected, Throttled, Unknown
    from services.payments.gateway.protocol import PaymentGateway

FRESH_SECONDS = 5.0
MAX_REMEMBERED = 10_000
"""Tenants; a process that serves more of them reads some more often."""
PLATFORM_ACCOUNT = "platform"
HINT_CHARACTERS = 4
API_KEY: Final = "api_key"
WEBHOOK_SECRET: Final = "webhook_secret"  # noqa: S105 - what a column's secrets are bound to

Load = Callable[[UUID], Awaitable[TenantAccount | None]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How calls are made for one account: with this key, and on that account's behalf if it is another's."""

    api_key: str = field(repr=False)
    on_behalf_of: str | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """What a process of this service reaches the provider with, and believes it by."""

    gateways: Gateways
    master_keys: MasterKeys
    platform_webhook_secrets: Sequence[SecretStr] = ()
    """Of all the endpoints that the platform has at the provider."""


class Provider(Protocol):
    """Makes clients of one provider, which share their connections."""

    def default_limits(self, credentials: Credentials) -> Limits:
        """What the provider allows an account of which nobody said more."""
        ...

    def client(self, credentials: Credentials, guard: Guard, share: Buckets | None = None) -> PaymentGateway:
        """A client for one account. It connects with its first call."""
        ...

    def authorize_url(self, client_id: str, state: str) -> str:
        """Where an account's owner lets the platform act for it."""
        ...

    async def exchange(self, credentials: Credentials, code: str) -> SeenAccount | Rejected | Unknown | Throttled:
        """Which account's owner has, by the code that came of it. Good once."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(slots=True)
class _Known:
    """A tenant's client, and until when nobody need ask whether it is still the right one."""

    account: TenantAccount | None
    gateway: PaymentGateway
    fresh_until: float


class Gateways:
    """Every tenant's way to the provider, for one process."""

    def __init__(
        self,
        load: Load,
        provider: Provider,
        *,
        platform: Credentials,
        master_keys: MasterKeys,
        connect_client_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._provider = provider
        self._platform = platform
        self._master_keys = master_keys
        self._connect_client_id = connect_client_id
        self._clock = clock
        self._known: dict[UUID, _Known] = {}
        self._asking: dict[UUID, asyncio.Task[_Known]] = {}
        self._guards: dict[str, Guard] = {}

    async def of(self, tenant_id: UUID) -> PaymentGateway:
        """The client of this tenant's account. Raises what reading it raises: then nothing was sent."""
        return (self._fresh(tenant_id) or await self._read_once(tenant_id)).gateway

    async def account(self, tenant_id: UUID, *, anew: bool = False) -> TenantAccount | None:
        """The tenant's account, as it was at most `FRESH_SECONDS` ago, or is now. None: there is no such tenant."""
        known = None if anew else self._fresh(tenant_id)
        return (known or await self._read_once(tenant_id)).account

    def trial(self, credentials: Credentials) -> PaymentGateway:
        """A client to see what a key is worth before it is stored."""
        return self._provider.client(credentials, Guard("trial", self._provider.default_limits(credentials)))

    def authorize_url(self, state: str) -> str:
        """Where an account's owner lets the platform act for it. Raises ConflictError for a platform that does not offer it."""
        if self._connect_client_id is None:
            raise ConflictError("connect-not-set-up", "this platform acts for no accounts of others: give an api_key")
        return self._provider.authorize_url(self._connect_client_id, state)

    async def exchange(self, code: str) -> SeenAccount | Rejected | Unknown | Throttled:
        """Which account's owner has let the platform act for it."""
        return await self._provider.exchange(self._platform, code)

    @property
    def platform(self) -> Credentials:
        """The account of those who have none of their own."""
        return self._platform

    async def close(self) -> None:
        """Close the connections."""
        await self._provider.close()

    def _fresh(self, tenant_id: UUID) -> _Known | None:
        known = self._known.get(tenant_id)
        return known if known is not None and self._clock() < known.fresh_until else None

    async def _read_once(self, tenant_id: UUID) -> _Known:
        """Whoever asks meanwhile waits for the same answer, and whoever is canceled takes it from nobody."""
        asking = self._asking.get(tenant_id)
        if asking is None:
            asking = self._asking[tenant_id] = asyncio.create_task(self._read(tenant_id))
            asking.add_done_callback(lambda done: self._answered(tenant_id, done))
        return await asyncio.shield(asking)

    def _answered(self, tenant_id: UUID, asking: asyncio.Task[_Known]) -> None:
        del self._asking[tenant_id]
        if not asking.cancelled():
            asking.exception()  # those who wait are told; that nobody waits any more is no fault

    async def _read(self, tenant_id: UUID) -> _Known:
        found = await self._load(tenant_id)
        known = self._known.get(tenant_id)
        fresh_until = self._clock() + FRESH_SECONDS
        if known is not None and known.account == found:
            known.fresh_until = fresh_until
            return known
        if found is None:
            return _Known(None, self._client(TenantAccount(None, {})), fresh_until)
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        known = self._known[tenant_id] = _Known(found, self._client(found), fresh_until)
        return known

    def _client(self, found: TenantAccount) -> PaymentGateway:
        """The limits of a tenant are those of its account; on the platform's, they are its share of what all may."""
        limits = limits_of(found.settings)
        if found.account is None:
            guard = self._guard(PLATFORM_ACCOUNT, self._provider.default_limits(self._platform))
            share = None if limits is None else Buckets(limits, self._clock())
            return self._provider.client(self._platform, guard, share)
        credentials = credentials_of(found.account, self._platform, self._master_keys)
        # By tenant: whoever names an account that another tenant uses too has nothing to say about that one's calls.
        name = str(found.account.tenant_id)
        return self._provider.client(credentials, self._guard(name, limits or self._provider.default_limits(credentials)))

    def _guard(self, name: str, limits: Limits) -> Guard:
        """An account's circuit and buckets outlive its keys."""
        guard = self._guards.get(name)
        if guard is None:
            guard = self._guards[name] = Guard(name, limits, clock=self._clock)
        guard.limit(limits)
        return guard


def credentials_of(account: ProviderAccount, platform: Credentials, master_keys: MasterKeys) -> Credentials:
    """With what calls for this account are made. Raises SealError when its key does not open."""
    if account.sealed_api_key is None:
        return Credentials(platform.api_key, account.account_id)
    data_key = master_keys.open(Envelope(account.master_key_id, account.wrapped_key), account.place)
    return Credentials(data_key.open(account.sealed_api_key, API_KEY))


def webhook_secrets_of(account: ProviderAccount, master_keys: MasterKeys) -> list[str]:
    """With what this account's notices are signed. Raises SealError."""
    data_key = master_keys.open(Envelope(account.master_key_id, account.wrapped_key), account.place)
    return [data_key.open(b64decode(secret.sealed), WEBHOOK_SECRET) for secret in account.webhook_secrets]


@dataclass(frozen=True, slots=True)
class SealedAccount:
    """The secrets of an account as they are stored."""

    sealed_api_key: bytes | None
    api_key_hint: str | None
    webhook_secrets: tuple[WebhookSecret, ...]
    envelope: Envelope


def seal_account(
    tenant_id: UUID, provider: str, api_key: str | None, webhook_secrets: Sequence[str], master_keys: MasterKeys
) -> SealedAccount:
    """Seal the secrets of one account under a data key of their own."""
    data_key, envelope = master_keys.new_data_key(place_of(tenant_id, provider))
    return SealedAccount(
        sealed_api_key=None if api_key is None else data_key.seal(api_key, API_KEY),
        api_key_hint=None if api_key is None else api_key[-HINT_CHARACTERS:],
        webhook_secrets=tuple(
            WebhookSecret(b64encode(data_key.seal(secret, WEBHOOK_SECRET)).decode(), secret[-HINT_CHARACTERS:])
            for secret in webhook_secrets
        ),
        envelope=envelope,
    )
