"""A member's own second factor: begun, confirmed with a first code, renewed and removed. Nobody else's is to be seen here."""

from typing import Annotated, Any, Literal, NoReturn

from fastapi import Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common.auth import MEMBER, Principal
from libs.common.clock import now
from libs.common.decision import absent
from libs.common.errors import RejectedError
from libs.common.http.refusals import refused
from libs.common.http.routes import Call, Caller, Facing, Routes, public, reply
from libs.common.telemetry.security import Refused
from services.identity import handlers, repository
from services.identity.api.desk import Desk
from services.identity.api.factors import digests_of, new_recovery_codes, qr_of
from services.identity.domain.member import Member
from services.identity.domain.second_factor import FactorState, SecondFactor, Shown, not_right

ROUTES = Routes(Facing.CUSTOMERS)
PLACE = "/v1/second-factors"
OWN: dict[str, Any] = {"security": [{"bearer": list[str]()}]}


async def _member(call: Caller) -> Principal:
    """Whoever has a member's token: a machine has no phone, and a shopper signs in at the shop."""
    await call.authenticate()
    if MEMBER not in call.principal.roles:
        raise absent(Member)
    return call.principal


Somebody = Annotated[Principal, Depends(_member)]


class Code(BaseModel):
    """A code of the authenticator app, or one of the recovery codes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: Annotated[str, Field(min_length=6, max_length=40, pattern=r"^[A-Za-z0-9 -]*$")]


Standing = Literal["none", "pending", "active"]


class SecondFactorModel(BaseModel):
    """Where one's second factor stands."""

    state: Standing
    recovery_codes_left: int


class EnrolmentModel(BaseModel):
    """What an authenticator app is to be given. Shown here and never again."""

    state: FactorState
    secret: str
    uri: str
    qr_svg: str


class RecoveryModel(BaseModel):
    """Codes for whoever has lost their phone, each good once. Shown here and never again."""

    recovery_codes: list[str]


async def _found(call: Call) -> tuple[Member, SecondFactor | None, str]:
    """The member whose token it is, their second factor, and what their tenant is called."""
    tenant_id, member_id = call.tenant_id, call.principal.subject
    async with call.transaction() as connection:
        members = await repository.MEMBERS.load(connection, [(tenant_id, member_id)], lock=False)
        factors = await repository.SECOND_FACTORS.load(connection, [(tenant_id, member_id)], lock=False)
        tenants = await repository.TENANTS.load(connection, [(tenant_id, tenant_id)], lock=False)
    if not members or not tenants or not members[0].is_active:
        raise absent(Member)
    return members[0], factors[0] if factors else None, tenants[0].name


def guessed_at(member: Member) -> str:
    """Under which name guesses at a member's codes are counted."""
    return f"{member.tenant_id}:{member.id}:second-factor"


def _judged(call: Call, member: Member, factor: SecondFactor | None, code: str) -> Shown:
    """Count it as wrong until it is known better, so that many at once are as many guesses. Raises RateLimitedError."""
    name = guessed_at(member)
    call.service.rates.demand_may_guess(name, "")
    call.service.rates.guessed(name, "", right=False)
    if factor is None or factor.sealed_secret is None:
        _refuse(call, not_right())
    return call.service.shared(Desk).factors.judged(factor, code, now())


def _refuse(call: Call, error: RejectedError) -> NoReturn:
    subject = str(call.principal.subject)
    refused(Refused.LOGIN, "wrong-second-factor", call.request.scope, PLACE, tenant_id=call.tenant_id, subject=subject)
    raise error


async def _done(call: Call, member: Member, command: Any) -> None:
    try:
        await call.execute(command)
    except RejectedError as error:
        _refuse(call, error)
    call.service.rates.guessed(guessed_at(member), "", right=True)


@ROUTES.get(PLACE, response_model=SecondFactorModel, openapi_extra=OWN)
@public
async def read_second_factor(call: Caller, _principal: Somebody) -> Response:
    """Whether one has a second factor, and how many recovery codes are left."""
    _, factor, _ = await _found(call)
    state: Standing = "none"
    if factor is not None and factor.state is not FactorState.REMOVED:
        state = "active" if factor.state is FactorState.ACTIVE else "pending"
    return reply(200, SecondFactorModel(state=state, recovery_codes_left=len(factor.recovery) if factor else 0))


@ROUTES.post(PLACE, status_code=201, response_model=EnrolmentModel, openapi_extra=OWN)
@public
async def begin_second_factor(call: Caller, _principal: Somebody) -> Response:
    """Get a secret for an authenticator app. It counts once a code of it is confirmed; until then the next takes its place."""
    member, _, tenant = await _found(call)
    made = call.service.shared(Desk).factors.new(member, tenant)
    command = handlers.BeginFactor(member_id=member.id, enrolment=made.id, sealed_secret=made.sealed)
    await call.execute(command)
    model = EnrolmentModel(state=FactorState.PENDING, secret=made.secret, uri=made.uri, qr_svg=qr_of(made.uri))
    return reply(201, model, Cache_Control="no-store")


@ROUTES.post(f"{PLACE}/confirm", response_model=RecoveryModel, openapi_extra=OWN)
@public
async def confirm_second_factor(call: Caller, _principal: Somebody, body: Code) -> Response:
    """Be asked for it from now on, upon a first code; answers ten recovery codes."""
    member, factor, _ = await _found(call)
    shown, codes = _judged(call, member, factor, body.code), new_recovery_codes()
    await _done(call, member, handlers.ConfirmFactor(member_id=member.id, shown=shown, recovery=digests_of(member.id, codes)))
    return reply(200, RecoveryModel(recovery_codes=codes), Cache_Control="no-store")


@ROUTES.post(f"{PLACE}/recovery-codes", response_model=RecoveryModel, openapi_extra=OWN)
@public
async def renew_recovery_codes(call: Caller, _principal: Somebody, body: Code) -> Response:
    """Get ten other recovery codes, upon a code; those before them are good no more."""
    member, factor, _ = await _found(call)
    shown, codes = _judged(call, member, factor, body.code), new_recovery_codes()
    await _done(
        call, member, handlers.RenewRecoveryCodes(member_id=member.id, shown=shown, recovery=digests_of(member.id, codes))
    )
    return reply(200, RecoveryModel(recovery_codes=codes), Cache_Control="no-store")


@ROUTES.post(f"{PLACE}/remove", status_code=204, openapi_extra=OWN)
@public
async def remove_second_factor(call: Caller, _principal: Somebody, body: Code) -> Response:
    """Be asked for it no more, upon a code or a recovery code. Where the tenant requires one, signing in leads to the next."""
    member, factor, _ = await _found(call)
    shown = _judged(call, member, factor, body.code)
    await _done(call, member, handlers.RemoveFactor(member_id=member.id, shown=shown))
    return reply(204, None)
