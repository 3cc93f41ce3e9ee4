"""The second step of signing in: a code after the password, and the way to a second factor for who must have one."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from fastapi import Response

from libs.common.clock import now
from libs.common.errors import ConflictError, RejectedError
from libs.common.http.refusals import refused
from libs.common.http.routes import Call
from libs.common.telemetry.security import Refused
from services.identity import handlers, repository
from services.identity.api.desk import Desk
from services.identity.api.factors import Factors, digests_of, member_named, new_recovery_codes, qr_of, uri_of
from services.identity.api.pages import code_page, enrolment_page, sign_in_page
from services.identity.api.second_factors import guessed_at
from services.identity.domain.member import Member
from services.identity.domain.second_factor import SecondFactor, Shown

ROUTE = "/oauth/authorize"
WRONG = "This code is not right, or was used before. Wait for the next one."
LATER = "Too many wrong codes. Wait a minute, then try again."
OVER = "That took too long. Sign in once more."
MAX_LENGTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where somebody signs in: for which application of which tenant, and with what of its request to be carried along."""

    tenant_id: UUID
    tenant: str
    client_id: str
    fields: Mapping[str, str]
    redirect_uri: str
    is_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """Somebody whose password was right, and the code that they showed with it."""

    member: Member
    shown: Shown


async def next_page(call: Call, at: Place, member: Member) -> Response | None:
    """What a member is asked for after their password; None if that is all."""
    factor = await _factor_of(call, member)
    if factor is not None and factor.is_active:
        return _code_page(call, at, member)
    if not at.is_required:
        return None
    factors = call.service.shared(Desk).factors
    made = factors.new(member, at.tenant)
    command = handlers.BeginFactor(member_id=member.id, enrolment=made.id, sealed_secret=made.sealed)
    try:
        await call.execute(command, tenant_id=at.tenant_id)
    except ConflictError:  # somebody confirmed one in this moment: it is what is asked for
        return _code_page(call, at, member)
    return _enrolment_page(call, at, member, made.secret)


async def judge(call: Call, at: Place, ticket: str, text: str) -> Passed | Response:
    """Who shows a code after their password, or the page that they see instead."""
    factors, text = call.service.shared(Desk).factors, text[:MAX_LENGTH]
    member = await _member_of(call, at, ticket, factors)
    factor = await _factor_of(call, member) if member is not None else None
    if member is None or factor is None or not (factor.is_active or (factor.is_pending and at.is_required)):
        return sign_in_page(at.tenant, at.fields, at.redirect_uri, wrong=OVER)
    name = guessed_at(member)
    is_late = call.service.rates.wait_to_guess(name, "") > 0
    if not is_late:
        call.service.rates.guessed(name, "", right=False)  # until it is known better: many at once are as many guesses
        shown = factors.judged(factor, text, now())
        if factor.is_active:
            return Passed(member=member, shown=shown)
        if (confirmed := await _confirmed(call, at, member, shown)) is not None:
            return confirmed
    wrong = LATER if is_late else WRONG
    if factor.is_active:
        page = _code_page(call, at, member, wrong=wrong)
    else:
        page = _enrolment_page(call, at, member, factors.secret_of(factor), wrong=wrong)
    if is_late:
        page.status_code = 429
    return page


async def let_in(call: Call, at: Place, command: handlers.IssueCode, member: Member) -> Response | None:
    """Issue the code, which takes what was shown; the page that says that it is not right, or None."""
    try:
        await call.execute(command, tenant_id=at.tenant_id)
    except RejectedError:
        told = {"subject": str(member.id)}
        refused(Refused.LOGIN, "wrong-second-factor", call.request.scope, ROUTE, tenant_id=at.tenant_id, **told)
        return _code_page(call, at, member, wrong=WRONG)
    if command.shown is not None:
        call.service.rates.guessed(guessed_at(member), "", right=True)
    return None


async def _confirmed(call: Call, at: Place, member: Member, shown: Shown) -> Response | None:
    """The recovery codes of a second factor that works, and where to show its next code; None for a wrong one."""
    codes = new_recovery_codes()
    command = handlers.ConfirmFactor(member_id=member.id, shown=shown, recovery=digests_of(member.id, codes))
    try:
        await call.execute(command, tenant_id=at.tenant_id)
    except RejectedError:
        return None
    call.service.rates.guessed(guessed_at(member), "", right=True)
    return _code_page(call, at, member, recovery_codes=codes)


def _code_page(call: Call, at: Place, member: Member, *, wrong: str = "", recovery_codes: list[str] | None = None) -> Response:
    return code_page(at.tenant, _carried(call, at, member), at.redirect_uri, wrong=wrong, recovery_codes=recovery_codes or [])


def _enrolment_page(call: Call, at: Place, member: Member, secret: str, *, wrong: str = "") -> Response:
    drawn = qr_of(uri_of(secret, member.email, at.tenant))
    return enrolment_page(at.tenant, _carried(call, at, member), at.redirect_uri, secret=secret, qr=drawn, wrong=wrong)


def _carried(call: Call, at: Place, member: Member) -> Mapping[str, str]:
    return {**at.fields, "ticket": call.service.shared(Desk).factors.ticket(member, at.client_id, now())}


async def _factor_of(call: Call, member: Member) -> SecondFactor | None:
    async with call.transaction(member.tenant_id) as connection:
        found = await repository.SECOND_FACTORS.load(connection, [(member.tenant_id, member.id)], lock=False)
    return found[0] if found else None


async def _member_of(call: Call, at: Place, ticket: str, factors: Factors) -> Member | None:
    member_id = member_named(ticket)
    if member_id is None:
        return None
    async with call.transaction(at.tenant_id) as connection:
        found = await repository.MEMBERS.load(connection, [(at.tenant_id, member_id)], lock=False)
    return found[0] if found and factors.honours(ticket, found[0], at.client_id, now()) else None
