"""HTTP in: the provider's webhooks. Verified over the raw body, stored, answered at once; `jobs/webhooks.py` does the rest.

No token says who calls: the signature does, made with a secret that only the provider and the tenant's account have.
"""

from typing import Literal
from uuid import UUID

import structlog
from fastapi import Request, Response
from pydantic import BaseModel

from libs.common.clock import now
from libs.common.errors import MalformedError, NotFoundError, RejectedError
from libs.common.http.routes import Call, Caller, Routes, public, reply
from libs.common.telemetry import Counter
from services.payments.domain.provider.account import TenantAccount
from services.payments.domain.provider.webhook import Notice, refusal
from services.payments.gateway.accounts import Access, Gateways, webhook_secrets_of
from services.payments.gateway.reading import is_live
from services.payments.gateway.webhooks import MAX_BYTES, read_notice, verify
from services.payments.repository.provider import webhooks

ROUTES = Routes()

WEBHOOKS = Counter("cartwright_webhooks_total", "Webhooks received", ["outcome"])

log = structlog.get_logger(__name__)


class ReceivedModel(BaseModel):
    """What became of a webhook: stored, or known already."""

    status: Literal["accepted", "duplicate"]


class _TooLargeError(RejectedError):
    status = 413


@ROUTES.post("/v1/webhooks/stripe/{tenant_id}", response_model=ReceivedModel)
@public
async def receive_webhook(call: Caller, tenant_id: UUID) -> Response:
    """Take an event of the tenant's account at Stripe. An answer other than 2xx makes Stripe send it again."""
    try:
        body = await _raw_body(call.request)
        status = await _receive(call, tenant_id, body)
    except (RejectedError, NotFoundError) as error:
        WEBHOOKS.labels(error.code).inc()
        raise
    WEBHOOKS.labels(status).inc()
    return reply(200, ReceivedModel(status=status))


async def _receive(call: Call, tenant_id: UUID, body: bytes) -> Literal["accepted", "duplicate"]:
    """What is known of the account is remembered for seconds, which leaves one short transaction with one insert."""
    notice = await _believed(call, tenant_id, body)
    async with call.transaction(tenant_id) as connection:
        is_new = await webhooks.store(connection, tenant_id, notice)
    return "accepted" if is_new else "duplicate"


async def _believed(call: Call, tenant_id: UUID, body: bytes) -> Notice:
    """What the tenant's provider says. Raises MalformedError and NotFoundError.

    What does not fit the account as it is remembered is held against the account as it is now. So a new secret counts at
    once, and one that was taken away for `FRESH_SECONDS` more.
    """
    gateways, rates = call.service.shared(Access).gateways, call.service.rates
    rates.demand_not_made_up(tenant_id, call.address)
    try:
        return _checked(call, tenant_id, await gateways.account(tenant_id), body, alarm=False)
    except (MalformedError, NotFoundError):
        if rates.wait_for_miss(call.address):
            raise  # no tenant's secrets change as fast as this address tries
    try:
        return _checked(call, tenant_id, await gateways.account(tenant_id, anew=True), body, alarm=True)
    except (MalformedError, NotFoundError):
        rates.missed(call.address)
        raise


def _checked(call: Call, tenant_id: UUID, known: TenantAccount | None, body: bytes, *, alarm: bool) -> Notice:
    if known is None:
        raise NotFoundError("tenant-not-found", "there is no such tenant")
    call.service.rates.found(tenant_id)
    verify(body, call.request.headers.get("stripe-signature"), _secrets(call, known), now())
    notice = read_notice(body)
    _demand_for_tenant(call, tenant_id, known, notice, alarm=alarm)
    return notice


def _secrets(call: Call, known: TenantAccount) -> list[str]:
    """The tenant's own, or the platform's for who has none; there may be none at all, and then nothing verifies."""
    access = call.service.shared(Access)
    own = webhook_secrets_of(known.account, access.master_keys) if known.account else []
    if own or access.platform_webhook_secret is None:
        return own
    return [] if known.account and known.account.sealed_api_key else [access.platform_webhook_secret.get_secret_value()]


def _demand_for_tenant(call: Call, tenant_id: UUID, known: TenantAccount, notice: Notice, *, alarm: bool) -> None:
    """Raise MalformedError, and the alarm if so asked, for an event that is the provider's and yet not for this tenant."""
    account, gateways = known.account, call.service.shared(Access).gateways
    reason = refusal(
        notice,
        tenant_id,
        livemode=account.livemode if account else _platform_is_live(gateways),
        account=account.account_id if account else None,
        on_behalf=account is not None and account.sealed_api_key is None,
    )
    if reason is None:
        return
    if alarm:
        log.critical(
            "webhook.refused",
            reason=reason,
            tenant_id=str(tenant_id),
            event_id=notice.id,
            event_type=notice.type,
            action="look at the provider's webhook endpoints: one sends a tenant what is not its own",
        )
    raise MalformedError("webhook-refused", f"this is {reason}")


def _platform_is_live(gateways: Gateways) -> bool:
    return is_live(gateways.platform.api_key)


async def _raw_body(request: Request) -> bytes:
    """The body as it was sent, and no more of it than an event can have."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BYTES:
            raise _TooLargeError("body-too-large", f"an event has at most {MAX_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)
