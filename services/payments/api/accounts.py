"""HTTP in: with whose account a tenant's payments are made. What is secret goes in and never comes out."""

from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from libs.common.clock import NIL, rfc3339
from libs.common.decision import Message
from libs.common.errors import ConflictError, NotFoundError, RejectedError, UnavailableError
from libs.common.http.members import Moment
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from libs.common.messaging.shell import Failure, Shell
from libs.common.sealing import MasterKeys
from services.payments.domain.provider.account import (
    MAX_WEBHOOK_SECRETS,
    STRIPE,
    AccountNotProvenError,
    ProviderAccount,
    SeenAccount,
)
from services.payments.domain.provider.outcome import Rejected, Throttled, Unknown
from services.payments.gateway import reading
from services.payments.gateway.accounts import Access, Credentials, Gateways, SealedAccount, seal_account
from services.payments.handlers.accounts import GiveAccount, RewrapAccount
from services.payments.repository.provider.accounts import ACCOUNTS, makes_payment, newest_intent, wrapped_otherwise
from services.payments.repository.provider.connections import is_proven

ROUTES = Routes(Facing.CUSTOMERS)
REWRAPPED_AT_ONCE = 200
NO_STORE = {"Cache_Control": "no-store"}

log = structlog.get_logger(__name__)


def _secret_like(pattern: Any, example: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        if not pattern.fullmatch(value.get_secret_value()):
            message = f"it looks like {example}"
            raise ValueError(message)
        return value

    return AfterValidator(check)


ApiKey = Annotated[SecretStr, _secret_like(reading.API_KEY, "sk_live_… or rk_live_… (or _test_)")]
WebhookKey = Annotated[SecretStr, _secret_like(reading.WEBHOOK_SECRET, "whsec_…")]


class AccountRequest(BaseModel):
    """The whole account: either a key of the tenant's own, or an account that the platform's key acts for."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    api_key: Annotated[ApiKey | None, Field(examples=[None])] = None
    account: Annotated[str | None, Field(pattern=f"^{reading.ACCOUNT_ID.pattern}$", examples=["acct_1ShopsOwn"])] = None
    webhook_secrets: Annotated[list[WebhookKey], Field(max_length=MAX_WEBHOOK_SECRETS, examples=[[]])]


class ProviderAccountModel(BaseModel):
    """An account as its owner sees it: of secrets the last four characters."""

    provider: str
    account: str | None
    api_key: str | None
    webhook_secrets: list[str]
    livemode: bool
    created_at: Moment
    rotated_at: Moment


class RewrappedModel(BaseModel):
    """What a rotation came to: how many accounts were wrapped anew, and how many could not be."""

    rewrapped: int
    failed: int


def account_model(account: ProviderAccount) -> ProviderAccountModel:
    """An account for an answer."""
    return ProviderAccountModel(
        provider=account.provider,
        account=account.account_id,
        api_key=None if account.api_key_hint is None else f"…{account.api_key_hint}",
        webhook_secrets=[f"…{secret.hint}" for secret in account.webhook_secrets],
        livemode=account.livemode,
        created_at=rfc3339(account.created_at),
        rotated_at=rfc3339(account.rotated_at),
    )


@ROUTES.get("/v1/provider-accounts/stripe", response_model=ProviderAccountModel)
@guard("provider-accounts:write", instead="ledger:read")
async def read_account(call: Caller) -> Response:
    """The tenant's own account, masked."""
    async with call.transaction() as connection:
        found = await ACCOUNTS.load(connection, [(call.tenant_id, STRIPE)], lock=False)
    if not found:
        raise NotFoundError("provider-account-not-found", "this tenant has no account of its own: the platform's is used")
    return reply(200, account_model(found[0]), ETag=f'"{found[0].version}"', **NO_STORE)


@ROUTES.put("/v1/provider-accounts/stripe", response_model=ProviderAccountModel)
@guard("provider-accounts:write")
async def put_account(call: Caller, given: AccountRequest) -> Response:
    """Take the tenant's account as given, whole, after the provider has said whose key it is."""
    credentials = _credentials(given, _gateways(call).platform)
    await _demand_proof(call, credentials)
    seen = await _whose(_gateways(call), credentials)
    await _demand_its_payments(call, credentials)
    master_keys = call.service.shared(Access).master_keys
    secrets = [secret.get_secret_value() for secret in given.webhook_secrets]
    api_key = given.api_key.get_secret_value() if given.api_key else None
    sealed = seal_account(call.tenant_id, STRIPE, api_key, secrets, master_keys)
    account = await _give(call, sealed, seen, livemode=reading.is_live(credentials.api_key))
    log.info(
        "provider_account.given",
        tenant_id=str(call.tenant_id),
        account=account.account_id,
        version=account.version,
        actor=str(call.principal.subject),
    )
    return reply(200, account_model(account), ETag=f'"{account.version}"', **NO_STORE)


async def _give(call: Call, sealed: SealedAccount, seen: SeenAccount, *, livemode: bool) -> ProviderAccount:
    """Raises AccountNotProvenError for one that another tenant has, whoever's key opens it."""
    given = GiveAccount(
        account_id=seen.provider_id,
        sealed_api_key=sealed.sealed_api_key,
        api_key_hint=sealed.api_key_hint,
        webhook_secrets=sealed.webhook_secrets,
        envelope=sealed.envelope,
        livemode=livemode,
    )
    try:
        account: ProviderAccount = await call.execute(given)
    except ConflictError as error:
        if error.code == "account-taken":
            raise AccountNotProvenError from None
        raise
    return account


async def _demand_proof(call: Call, credentials: Credentials) -> None:
    """A key shows its own account. One that is only named must have been connected; the provider is not asked of others."""
    if credentials.on_behalf_of is None:
        return
    async with call.transaction() as connection:
        if not await is_proven(connection, call.tenant_id, credentials.on_behalf_of):
            raise AccountNotProvenError


def _credentials(given: AccountRequest, platform: Credentials) -> Credentials:
    if (given.api_key is None) == (given.account is None):
        raise RejectedError("api-key-or-account", "give either an api_key or the account that the platform acts for")
    if given.api_key is None:
        return Credentials(platform.api_key, given.account)
    if not given.webhook_secrets:
        raise RejectedError("webhook-secret-missing", "an account with a key of its own needs a webhook secret of its own")
    return Credentials(given.api_key.get_secret_value())


async def _whose(gateways: Gateways, credentials: Credentials) -> SeenAccount:
    """Ask the provider: a key that opens nothing would decline every payment."""
    seen = await gateways.trial(credentials).account()
    if isinstance(seen, SeenAccount):
        return SeenAccount(credentials.on_behalf_of or seen.provider_id)
    if isinstance(seen, Rejected):
        raise RejectedError("provider-key-refused", f"the provider does not know this key or account: {seen.code}")
    raise UnavailableError("provider-unavailable", "the provider does not say whose key this is; nothing was stored")


async def _demand_its_payments(call: Call, credentials: Credentials) -> None:
    """A payment's captures and refunds belong where it was made, so the newest must be found with what is given."""
    async with call.transaction() as connection:
        intent_id = await newest_intent(connection, call.tenant_id)
        is_being_made = await makes_payment(connection, call.tenant_id)
    if is_being_made:
        detail = "a payment of this tenant is just being made, and belongs where that began: try again when that is over"
        raise ConflictError("provider-account-in-use", detail, retry_after=5)
    if intent_id is None:
        return
    found = await _gateways(call).trial(credentials).retrieve_intent(intent_id)
    if isinstance(found, Rejected):
        detail = "this tenant has payments in another account, where their captures and refunds belong"
        raise ConflictError("provider-account-in-use", detail)
    if isinstance(found, Unknown | Throttled):
        raise UnavailableError("provider-unavailable", "the provider does not say whose payments these are; nothing was stored")


def _gateways(call: Call) -> Gateways:
    return call.service.shared(Access).gateways


@ROUTES.post("/ops/provider-accounts/rewrap", response_model=RewrappedModel)
@guard("ops:repair", platform_only=True)
async def rewrap_accounts(call: Caller) -> Response:
    """Wrap every account's data key with the master key in force: what `keys rotate master` asks for."""
    master_keys = call.service.shared(Access).master_keys
    rewrapped = failed = 0
    for shell in call.service.every_shell():
        done, not_done = await _rewrap(call, shell, master_keys)
        rewrapped, failed = rewrapped + done, failed + not_done
    log.info("provider_accounts.rewrapped", master_key_id=master_keys.current.id, rewrapped=rewrapped, failed=failed)
    return reply(200, RewrappedModel(rewrapped=rewrapped, failed=failed))


async def _rewrap(call: Call, shell: Shell, master_keys: MasterKeys) -> tuple[int, int]:
    """How many accounts of one cell were wrapped anew, and how many could not be."""
    rewrapped = failed = 0
    after: UUID | None = NIL
    while after is not None:
        async with shell.database.acquire() as connection:
            wanted = await wrapped_otherwise(connection, master_keys.current.id, after, REWRAPPED_AT_ONCE)
        theirs = [each for each in wanted if call.service.shell_of(each) is shell]  # the others are about to be here, or were
        answers = await shell.execute_many([_rewrapping(call, tenant_id, master_keys) for tenant_id in theirs])
        for tenant_id, answer in zip(theirs, answers, strict=True):
            rewrapped += answer is True
            if isinstance(answer, Failure):
                failed += 1
                log.error("provider_account.not_rewrapped", tenant_id=str(tenant_id), error=str(answer.error))
        after = wanted[-1] if wanted else None
    return rewrapped, failed


def _rewrapping(call: Call, tenant_id: UUID, master_keys: MasterKeys) -> Message[RewrapAccount]:
    return call.message(RewrapAccount(master_keys=master_keys), tenant_id=tenant_id)
