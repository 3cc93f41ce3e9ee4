"""A tenant's provider account: given, and its secrets wrapped anew."""

from dataclasses import dataclass, replace

from libs.common.decision import Message, Ref, World
from libs.common.errors import NotFoundError
from libs.common.sealing import Envelope, MasterKeys
from libs.common.tenancy import Tenant, tenant_ref
from services.payments.domain.provider.account import STRIPE, ProviderAccount, WebhookSecret
from services.payments.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveAccount:
    """Make a tenant's payments with this account from now on. Its secrets come sealed."""

    account_id: str | None
    sealed_api_key: bytes | None
    api_key_hint: str | None
    webhook_secrets: tuple[WebhookSecret, ...]
    envelope: Envelope
    livemode: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrapAccount:
    """Wrap an account's data key with the master key in force."""

    master_keys: MasterKeys


@HANDLERS.on(GiveAccount, lambda m: [Ref(ProviderAccount, STRIPE), tenant_ref(m)])
def give_account(world: World, message: Message[GiveAccount]) -> ProviderAccount:
    """Answers the account as it is now."""
    if world.get(Tenant, world.tenant_id) is None:
        raise NotFoundError("tenant-not-found", "there is no such tenant")
    given, known = message.data, world.get(ProviderAccount, STRIPE)
    account = ProviderAccount(
        tenant_id=world.tenant_id,
        version=known.version if known else 0,
        sequence=known.sequence if known else 0,
        provider=STRIPE,
        account_id=given.account_id,
        sealed_api_key=given.sealed_api_key,
        api_key_hint=given.api_key_hint,
        webhook_secrets=given.webhook_secrets,
        master_key_id=given.envelope.master_key_id,
        wrapped_key=given.envelope.wrapped_key,
        livemode=given.livemode,
        created_at=known.created_at if known else world.now,
        rotated_at=world.now,
    )
    return world.save(account)


@HANDLERS.on(RewrapAccount, lambda _: [Ref(ProviderAccount, STRIPE)])
def rewrap_account(world: World, message: Message[RewrapAccount]) -> bool:
    """Answers whether there was anything to do. Raises SealError when the key that wrapped it is not among those given."""
    account, keys = world.get(ProviderAccount, STRIPE), message.data.master_keys
    if account is None or account.master_key_id == keys.current.id:
        return False
    envelope = keys.rewrap(Envelope(account.master_key_id, account.wrapped_key), account.place)
    world.save(replace(account, master_key_id=envelope.master_key_id, wrapped_key=envelope.wrapped_key))
    return True
