"""Passwords that are chosen anew. Nobody hears whether an address is anybody's: not in words, and not by the time."""

import asyncio
import re
import secrets
import time
import unicodedata
from typing import Annotated
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.clock import NIL, PLATFORM
from libs.common.contracts.external import NAMED
from libs.common.errors import RejectedError
from libs.common.http.refusals import refused
from libs.common.http.routes import Call, Caller, Facing, Routes, for_strangers, reply
from libs.common.telemetry.security import Refused
from services.identity import handlers, repository
from services.identity.api.desk import Desk
from services.identity.api.invitations import Email, Password
from services.identity.domain.member import email_key
from services.identity.domain.password_reset import digest_of, not_valid
from services.identity.domain.session import SessionState

ROUTES = Routes(Facing.CUSTOMERS)
PLACE = "/v1/password-resets/confirm"
TOKEN = re.compile(r"pwr_([0-9a-f]{32})_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")
TOKEN_BYTES = 32
ANSWER_SECONDS = 0.5
"""How long asking takes: longer than writing to somebody does, so that nobody is told apart from nobody."""
SESSIONS_AT_ONCE = 200


class NewReset(BaseModel):
    """Who has forgotten their password: of which tenant, by its id or its slug."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$", examples=["corner-shop"]), NAMED]
    email: Email


class Reset(BaseModel):
    """The token of the letter, and the password to be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: Annotated[str, Field(max_length=200)]
    password: Password


@ROUTES.post("/v1/password-resets", status_code=202, response_class=Response)
@for_strangers
async def ask_password_reset(call: Caller, body: NewReset) -> Response:
    """Have a letter written to a member who has forgotten their password. The answer is the same whoever is named."""
    until = time.monotonic() + ANSWER_SECONDS
    tenant_id = await _tenant_named(call, body.tenant)
    if tenant_id is not None:
        async with call.transaction(tenant_id) as connection:
            member = await repository.member_of(connection, tenant_id, email_key(body.email))
        if member is not None:
            token = f"pwr_{tenant_id.hex}_{member.id.hex}_{secrets.token_urlsafe(TOKEN_BYTES)}"
            letter = call.service.shared(Desk).letter(tenant_id, member.email, token)
            command = handlers.AskPasswordReset(member_id=member.id, digest=digest_of(token), letter=letter)
            await call.execute(command, tenant_id=tenant_id)
    await asyncio.sleep(until - time.monotonic())
    return reply(202, None, Cache_Control="no-store")


async def _tenant_named(call: Call, name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        async with call.transaction(PLATFORM) as connection:
            found = await repository.tenant_ids(connection, after=NIL, limit=1, slug=name)
        return found[0] if found else None


@ROUTES.post(PLACE, status_code=204)
@for_strangers
async def confirm_password_reset(call: Caller, body: Reset) -> Response:
    """Choose another password, with the token of the letter: good once and for an hour. Every session ends."""
    rates = call.service.rates
    rates.demand_not_made_up(body.token, call.address)
    password = await call.service.shared(Desk).passwords.hash(unicodedata.normalize("NFC", body.password))
    try:
        await _reset(call, body.token, password)
    except RejectedError as error:
        rates.missed(call.address)
        refused(Refused.LOGIN, error.code, call.request.scope, PLACE)
        raise
    return reply(204, None, Cache_Control="no-store")


async def _reset(call: Call, token: str, password: str) -> None:
    """What was begun with the old password until it was another is there when it is looked for a second time."""
    match = TOKEN.fullmatch(token)
    if match is None:
        raise not_valid()
    tenant_id, member_id = UUID(hex=match[1]), UUID(hex=match[2])
    command = handlers.ResetPassword(
        member_id=member_id,
        presented=digest_of(token),
        password=password,
        sessions=await _sessions(call, tenant_id, member_id),
    )
    await call.execute(command, tenant_id=tenant_id)
    while left := await _sessions(call, tenant_id, member_id):
        await call.execute(handlers.EndLeftSessions(member_id=member_id, sessions=left), tenant_id=tenant_id)


async def _sessions(call: Call, tenant_id: UUID, member_id: UUID) -> tuple[UUID, ...]:
    where = {"state": SessionState.LIVE, "subject_id": member_id}
    async with call.transaction(tenant_id) as connection:
        found = await repository.SESSIONS.page(connection, tenant_id, after=None, limit=SESSIONS_AT_ONCE, where=where)
    return tuple(each.id for each in found)
