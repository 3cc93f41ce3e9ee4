"""What operators do with keys: rotate and revoke those that sign, and seal what is stored with the master key in force."""

from functools import partial

from fastapi import Response
from pydantic import BaseModel

from libs.common.clock import PLATFORM, rfc3339
from libs.common.http.routes import Call, Caller, Facing, Routes, guard, reply
from services.identity.api.issuer import Issuer
from services.identity.api.keyring import Said
from services.identity.domain.signing_key import KeyState, SigningKey

ROUTES = Routes(Facing.CUSTOMERS)


class SigningKeyModel(BaseModel):
    """A signing key as operators see it."""

    kid: str
    state: KeyState
    not_before: str
    """Since when it signs; of the next one, when it may at the earliest."""
    not_after: str | None = None
    """Until when it is believed, once it signs no more."""


class SigningKeysModel(BaseModel):
    """All there ever were, the oldest first."""

    items: list[SigningKeyModel]


class RotatedModel(BaseModel):
    """Which key signs now, and which did before."""

    kid: str
    previous_kid: str


class ResealedModel(BaseModel):
    """How much was sealed anew; how much could not be opened."""

    rewrapped: int
    failed: int


def signing_key_model(key: SigningKey) -> SigningKeyModel:
    """A key for an answer."""
    return SigningKeyModel(
        kid=key.kid,
        state=key.state,
        not_before=rfc3339(key.not_before),
        not_after=key.not_after and rfc3339(key.not_after),
    )


def _said(call: Call) -> Said:
    """What the caller has done is on record as theirs."""
    return partial(call.message, tenant_id=PLATFORM)


@ROUTES.get("/ops/signing-keys", response_model=SigningKeysModel)
@guard("ops:read", platform_only=True)
async def list_signing_keys(call: Caller) -> Response:
    """Which key signs, which will, and which did."""
    keys = await call.service.shared(Issuer).ring.known()
    return reply(200, SigningKeysModel(items=[signing_key_model(key) for key in keys]))


@ROUTES.post("/ops/signing-keys/rotate", response_model=RotatedModel)
@guard("ops:repair", platform_only=True)
async def rotate_signing_key(call: Caller) -> Response:
    """Sign with the next key, which everybody knows by now: what `keys rotate signing` asks for."""
    previous, kid = await call.service.shared(Issuer).ring.rotate(_said(call))
    return reply(200, RotatedModel(kid=kid, previous_kid=previous))


@ROUTES.post("/ops/signing-keys/{kid}/revoke", status_code=204)
@guard("ops:repair", platform_only=True)
async def revoke_signing_key(call: Caller, kid: str) -> Response:
    """Have nobody believe a key any more, at once: what `keys revoke` asks for."""
    await call.service.shared(Issuer).ring.revoke(kid, _said(call))
    return reply(204, None)


@ROUTES.post("/ops/signing-keys/rewrap", response_model=ResealedModel)
@guard("ops:repair", platform_only=True)
async def reseal(call: Caller) -> Response:
    """Seal private keys and this service's secrets with the master key in force: what `keys rotate master` asks for."""
    resealed, failed = await call.service.shared(Issuer).ring.reseal(_said(call))
    return reply(200, ResealedModel(rewrapped=resealed, failed=failed))
