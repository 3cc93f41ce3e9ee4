"""HTTP in: the provider's webhooks. Verified over the raw body, stored, answered at once; `jobs/webhooks.py` does the rest.

No token says who calls: the signature does, made with a secret that only the provider and the account's owner have. The
platform's secrets speak for all who use its account or are connected to it, and the event says for whom; a tenant's own
speak for that tenant alone. Whoever shares an account is told of the neighbours' objects too, which is nobody's fault: such
an event is acted upon for its owner or not at all, and answered 2xx.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import structlog
from fastapi import Request, Response
from pydantic import BaseModel

from libs.common.clock import now
from libs.common.errors import MalformedError, NotFoundError, RejectedError, UnavailableError
from libs.common.http.routes import Call, Caller, Facing, Routes, public, reply
from libs.common.telemetry import Counter
from services.payments.domain.provider.account import ProviderAccount, TenantAccount
from services.payments.domain.provider.webhook import Notice, refusal
from services.payments.gateway.accounts import Access, webhook_secrets_of
from services.payments.gateway.reading import is_live
from services.payments.gateway.webhooks import MAX_BYTES, read_notice, verify
from services.payments.repository.provider import webhooks

ROUTES = Routes(Facing.CUSTOMERS)

WEBHOOKS = Counter("cartwright_webhooks_total", "Webhooks received", ["outcome"])

Status = Literal["accepted", "duplicate", "ignored"]

log = structlog.get_logger(__name__)


class ReceivedModel(BaseModel):
    """What became of a webhook: stored, known already, or of nothing that is ours."""

    status: Status


class _TooLargeError(RejectedError):
    status = 413


@dataclass(frozen=True, slots=True)
class _Signer:
    """Who may have signed: a tenant's own account, or one of the platform's endpoints."""

    secrets: Sequence[str]
    is_platform: bool


SIGNED = {
    "parameters": [{"name": "Stripe-Signature", "in": "header", "required": True, "schema": {"type": "string"}}],
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
}


@ROUTES.post("/v1/webhooks/stripe", response_model=ReceivedModel, openapi_extra=SIGNED)
@public
async def receive_webhooks(call: Caller) -> Response:
    """Take an event of the platform's account, or of one connected to it, for the tenant whose object it is about."""
    return await _answer(call, None)


@ROUTES.post("/v1/webhooks/stripe/{tenant_id}", response_model=ReceivedModel, openapi_extra=SIGNED)
@public
async def receive_webhook(call: Caller, tenant_id: UUID) -> Response:
    """Take an event of the tenant's account at Stripe. An answer other than 2xx makes Stripe send it again."""
    return await _answer(call, tenant_id)


async def _answer(call: Call, addressed: UUID | None) -> Response:
    try:
        status = await _receive(call, addressed, await _raw_body(call.request))
    except (RejectedError, NotFoundError) as error:
        WEBHOOKS.labels(error.code).inc()
        raise
    WEBHOOKS.labels(status).inc()
    return reply(200, ReceivedModel(status=status))


async def _receive(call: Call, addressed: UUID | None, body: bytes) -> Status:
    """What is known of an account is remembered for seconds, which mostly leaves one short transaction with one insert."""
    signer = _verified(call, _platform(call), body) if addressed is None else await _verified_at(call, addressed, body)
    notice = read_notice(body)
    owners, unasked = await _owners(call, notice, addressed) if signer.is_platform else ([addressed], None)
    stored = [await _store(call, each, notice) for each in owners if each and await _is_for(call, each, notice, signer)]
    if unasked is not None:
        raise unasked  # the provider sends it again, and those who have it by now have it once
    if not stored:
        return "ignored"
    return "accepted" if any(stored) else "duplicate"


async def _store(call: Call, tenant_id: UUID, notice: Notice) -> bool:
    shell = call.service.shell_of(tenant_id)
    async with shell.database.transaction([tenant_id]) as connection:
        return await webhooks.store(connection, tenant_id, notice, cell=shell.cell, ends=True)


# --- Who says so ---------------------------------------------------------------------------------------------------------


async def _verified_at(call: Call, tenant_id: UUID, body: bytes) -> _Signer:
    """Who signed what came to a tenant's address. Raises MalformedError and NotFoundError.

    What fits no secret as they are remembered is held against the account as it is now. So a new secret counts at once,
    and one that was taken away for `FRESH_SECONDS` more.
    """
    gateways, rates = call.service.shared(Access).gateways, call.service.rates
    rates.demand_not_made_up(tenant_id, call.address)
    try:
        return _verified(call, _signer(call, tenant_id, await gateways.account(tenant_id)), body)
    except (MalformedError, NotFoundError):
        if rates.wait_for_miss(call.address):
            raise  # no tenant's secrets change as fast as this address tries
    try:
        return _verified(call, _signer(call, tenant_id, await gateways.account(tenant_id, anew=True)), body)
    except (MalformedError, NotFoundError):
        rates.missed(call.address)
        raise


def _signer(call: Call, tenant_id: UUID, known: TenantAccount | None) -> _Signer:
    """The tenant itself, or the platform for who has no secret; there may be none at all, and then nothing verifies."""
    if known is None:
        raise NotFoundError("tenant-not-found", "there is no such tenant")
    call.service.rates.found(tenant_id)
    own = webhook_secrets_of(known.account, call.service.shared(Access).master_keys) if known.account else []
    has_key = known.account is not None and known.account.sealed_api_key is not None
    return _Signer(own, is_platform=False) if own or has_key else _platform(call)


def _platform(call: Call) -> _Signer:
    secrets = call.service.shared(Access).platform_webhook_secrets
    return _Signer([secret.get_secret_value() for secret in secrets], is_platform=True)


def _verified(call: Call, signer: _Signer, body: bytes) -> _Signer:
    verify(body, call.request.headers.get("stripe-signature"), signer.secrets, now())
    return signer


# --- For whom ------------------------------------------------------------------------------------------------------------


async def _owners(call: Call, notice: Notice, addressed: UUID | None) -> tuple[Sequence[UUID | None], UnavailableError | None]:
    """For whom the platform's notice may be: as our metadata says, or whose account or payment it names, or who is addressed.

    Only a database knows the second, and each cell's must be asked; also answers what kept us from asking one.
    """
    if notice.tenant_id is not None:
        return [notice.tenant_id], None
    owners, unasked = dict[UUID, None](), None
    for shell in call.service.every_shell():
        try:
            async with shell.database.acquire() as connection:
                owners |= dict.fromkeys(await webhooks.owners_of(connection, notice))
        except UnavailableError as error:
            unasked = error
    return [*owners] or [addressed], unasked


async def _is_for(call: Call, tenant_id: UUID, notice: Notice, signer: _Signer) -> bool:
    """Whether a notice is for this tenant; what does not fit its account as it is remembered is held against it as it is."""
    gateways, reason = call.service.shared(Access).gateways, "an event about no tenant's object"
    for anew in (False, True):
        known = await gateways.account(tenant_id, anew=anew)
        if known is None:
            break
        refused = _refusal(notice, tenant_id, known.account, signer, platform_is_live=is_live(gateways.platform.api_key))
        if refused is None:
            return True
        reason = refused
    # A neighbour's event is nothing to report. One that a tenant's own endpoint has no business to send, somebody set up.
    say = log.info if signer.is_platform else log.warning
    say("webhook.ignored", reason=reason, tenant_id=str(tenant_id), event_id=notice.id, event_type=notice.type)
    return False


def _refusal(
    notice: Notice, tenant_id: UUID, account: ProviderAccount | None, signer: _Signer, *, platform_is_live: bool
) -> str | None:
    if account is None:
        return refusal(notice, tenant_id, livemode=platform_is_live, account=None, on_behalf=False)
    if signer.is_platform and account.account_id is None:
        return "an event of another account"  # the tenant's own key did not say which its account is
    on_behalf = signer.is_platform or account.sealed_api_key is None
    return refusal(notice, tenant_id, livemode=account.livemode, account=account.account_id, on_behalf=on_behalf)


async def _raw_body(request: Request) -> bytes:
    """The body as it was sent, and no more of it than an event can have."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BYTES:
            raise _TooLargeError("body-too-large", f"an event has at most {MAX_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
