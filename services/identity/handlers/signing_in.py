"""Members who sign in by browser: a code for their application, and the session that it takes it for."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from libs.common.decision import Message, Ref, World
from services.identity import domain
from services.identity.domain.client import Client
from services.identity.domain.member import Member
from services.identity.domain.revocation import Epoch
from services.identity.domain.second_factor import SecondFactor, Shown
from services.identity.domain.session import Session
from services.identity.domain.sign_in import LIFETIME, AuthorizationCode, Redeemed
from services.identity.domain.tenant import Tenant
from services.identity.handlers.granting import allowed_to, role_refs
from services.identity.handlers.revoking import epoch_ref, raise_epoch
from services.identity.handlers.second_factors import factor_refs
from services.identity.handlers.table import COMING_IN, HANDLERS


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueCode:
    """Let an application have a code, for a member who has just shown that it is them: `shown`, beside their password."""

    code_id: UUID
    digest: str
    member_id: UUID
    client_id: str
    redirect_uri: str
    challenge: str
    scopes: tuple[str, ...]
    password: str | None
    """The hash that the password was held against: it may be another by now."""
    shown: Shown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeemCode:
    """Take a code for a session with this refresh token; both by their digests."""

    code_id: UUID
    presented: str
    client_id: str
    redirect_uri: str
    verifier: str
    session_id: UUID
    refresh_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A member as their application's tokens are made of."""

    member: Member
    client: Client
    allowed: frozenset[str]
    """What the member's roles allow together, at this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadStanding:
    """Look what a member's tokens may be made of."""

    member_id: UUID
    client_id: str


def _who_comes(message: Message[IssueCode]) -> list[Ref]:
    return [*factor_refs(message.data.member_id), Ref(Tenant, message.tenant_id, shared=True)]


@HANDLERS.on(IssueCode, _who_comes, unaudited=COMING_IN)
def issue_code(world: World, message: Message[IssueCode]) -> AuthorizationCode:
    """Answers the code. Raises RejectedError unless the member may come in, with their second factor if there must be one."""
    command = message.data
    member, tenant = world.get(Member, command.member_id), world.get(Tenant, world.tenant_id)
    if member is None or tenant is None or not member.is_active or member.password != command.password:
        raise domain.second_factor.not_right()
    factor = world.get(SecondFactor, member.id)
    used = domain.second_factor.demand(factor, command.shown, is_required=tenant.requires_totp)
    if used is not None:
        world.save(used)
    code = AuthorizationCode(
        tenant_id=world.tenant_id,
        id=command.code_id,
        digest=command.digest,
        member_id=command.member_id,
        client_id=command.client_id,
        redirect_uri=command.redirect_uri,
        challenge=command.challenge,
        scopes=command.scopes,
        expires_at=world.now + LIFETIME,
    )
    return world.save(code)


def _whose(world: World, message: Message[RedeemCode]) -> Iterable[Ref]:
    """Whose code it is, locked so that no session begins beside a password that is changed; and what it was taken for before."""
    code = world.get(AuthorizationCode, message.data.code_id)
    if code is None:
        return []
    taken_for = [] if code.session_id is None else [Ref(Session, code.session_id), epoch_ref(code.session_id)]
    return [Ref(Member, code.member_id), epoch_ref(code.member_id), *taken_for]


def _is_over(world: World, code: AuthorizationCode | None) -> bool:
    """Whether something was taken from the member since: what they showed to get the code may be known to somebody else."""
    epoch = world.get(Epoch, str(code.member_id)) if code is not None else None
    return code is not None and epoch is not None and domain.revocation.is_since(epoch, code.issued_at)


@HANDLERS.on(RedeemCode, lambda m: [Ref(AuthorizationCode, m.data.code_id)], _whose, unaudited=COMING_IN)
def redeem_code(world: World, message: Message[RedeemCode]) -> tuple[Session | None, Redeemed]:
    """Answers the session, and what became of the code. A refusal is no error here: the end of a session must stand."""
    command = message.data
    code, came_to = domain.sign_in.redeem(
        world.get(AuthorizationCode, command.code_id),
        presented=command.presented,
        client_id=command.client_id,
        redirect_uri=command.redirect_uri,
        verifier=command.verifier,
        session_id=command.session_id,
        now=world.now,
    )
    if code is None or code.session_id is None or came_to is Redeemed.REFUSED:
        return None, Redeemed.REFUSED
    if came_to is Redeemed.TAKEN and _is_over(world, code):
        return None, Redeemed.REFUSED
    if came_to is Redeemed.REUSED:
        taken_for = world.get(Session, code.session_id)
        if taken_for is not None and not taken_for.is_gone:
            raise_epoch(world, "session", taken_for.id)
            world.save(domain.session.end(taken_for))
        return taken_for, came_to
    world.save(code)
    session = domain.session.start(
        world.tenant_id,
        command.session_id,
        code.member_id,
        command.refresh_digest,
        world.now,
        is_guest=False,
        client_id=code.client_id,
        scopes=code.scopes,
    )
    return world.save(session), came_to


def _who(message: Message[ReadStanding]) -> list[Ref]:
    command = message.data
    whose = (Member, command.member_id), (Client, command.client_id), (Tenant, message.tenant_id)
    return [Ref(kind, key, shared=True) for kind, key in whose]


def _roles(world: World, message: Message[ReadStanding]) -> list[Ref]:
    member = world.get(Member, message.data.member_id)
    return role_refs(member.roles if member is not None else ())


@HANDLERS.on(ReadStanding, _who, _roles, unaudited=COMING_IN)
def read_standing(world: World, message: Message[ReadStanding]) -> Standing | None:
    """Answers what tokens may be made of; None when there are to be none: nobody, nobody active, or no client any more."""
    command = message.data
    member, tenant = world.get(Member, command.member_id), world.get(Tenant, world.tenant_id)
    client = domain.console.console(world.tenant_id, command.client_id) or world.get(Client, command.client_id)
    if member is None or client is None or tenant is None:
        return None
    if not member.is_active or client.is_gone or not tenant.admits_clients:
        return None
    return Standing(member=member, client=client, allowed=allowed_to(world, member.roles))
