"""Signing keys and the service's own secrets: made, rotated, revoked, sealed anew, told again.

What is told of a key carries the root key's word for it, or for its end, so each of these commands brings the root key along.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from libs.common.certificates import RootKey
from libs.common.contracts.identity import SigningKeyUpdated
from libs.common.decision import Message, Ref, World, present
from services.identity import domain
from services.identity.domain.service_secret import ServiceSecret
from services.identity.domain.signing_key import KeyState, SigningKey
from services.identity.handlers.table import HANDLERS


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key pair that was just made."""

    kid: str
    jwk: dict[str, str]
    sealed_private_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AddSigningKey:
    """Begin to sign with a key, or publish the one that will: that is the first, this the second of all keys."""

    key: NewKey
    state: KeyState
    not_before: datetime
    root: RootKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateSigningKey:
    """Sign with the next key, and publish the one after it. Both kids are as they were when this was decided on."""

    active_kid: str
    next_kid: str
    following: NewKey
    known_at: datetime
    """When the one after it may sign."""
    root: RootKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeSigningKey:
    """Believe a key no more. If it is the one that signs, the next one does, however new it is."""

    kid: str
    next_kid: str
    following: NewKey
    known_at: datetime
    root: RootKey


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSigningKey:
    """Believe a retired key no more, whose last token is over."""

    kid: str
    root: RootKey


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceSigningKey:
    """Publish a signing key as it is, to whoever has not heard of it."""

    kid: str
    root: RootKey


@dataclass(frozen=True, slots=True)
class ResealSigningKey:
    """Keep a private key sealed with another master key, unless it was changed meanwhile."""

    kid: str
    was: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepSecret:
    """Keep a secret of the service, if it has none of this name."""

    name: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class ResealSecret:
    """The same for a secret as for a private key."""

    name: str
    was: bytes
    sealed: bytes


def _key(message: Message[Any]) -> list[Ref]:
    return [Ref(SigningKey, message.data.kid)]


def _told(key: SigningKey, root: RootKey, now: datetime) -> SigningKeyUpdated:
    """What everybody hears of a key. Its end is certified like its beginning."""
    is_over = key.state is KeyState.REVOKED
    return domain.signing_key.updated(key, root.revoke(key.kid, now) if is_over else root.certify(key.jwk, now))


def _save(world: World, keys: Iterable[SigningKey], root: RootKey) -> None:
    for key in keys:
        world.save(key, _told(key, root, world.now))


def _made(world: World, new: NewKey, state: KeyState, not_before: datetime) -> SigningKey:
    return SigningKey(
        tenant_id=world.tenant_id,
        kid=new.kid,
        state=state,
        jwk=new.jwk,
        sealed_private_key=new.sealed_private_key,
        not_before=not_before,
    )


@HANDLERS.on(AddSigningKey, lambda m: [Ref(SigningKey, m.data.key.kid)], always_audited=True)
def add_signing_key(world: World, message: Message[AddSigningKey]) -> None:
    """That there is no other in the same state is the database's to say."""
    command = message.data
    _save(world, [_made(world, command.key, command.state, command.not_before)], command.root)


def _changed(message: Message[RotateSigningKey]) -> list[Ref]:
    command = message.data
    return [Ref(SigningKey, kid) for kid in (command.active_kid, command.next_kid, command.following.kid)]


@HANDLERS.on(RotateSigningKey, _changed, always_audited=True)
def rotate_signing_key(world: World, message: Message[RotateSigningKey]) -> None:
    """Refused when another process was first: then these two are not what they were."""
    command = message.data
    active, following = (present(SigningKey, world.get(SigningKey, kid)) for kid in (command.active_kid, command.next_kid))
    domain.signing_key.demand_known(following, world.now)
    retired, activated = domain.signing_key.retire(active, world.now), domain.signing_key.activate(following, world.now)
    new = _made(world, command.following, KeyState.NEXT, command.known_at)
    _save(world, (retired, activated, new), command.root)


@HANDLERS.on(
    RevokeSigningKey,
    lambda m: [*_key(m), *(Ref(SigningKey, kid) for kid in (m.data.next_kid, m.data.following.kid))],
    always_audited=True,
)
def revoke_signing_key(world: World, message: Message[RevokeSigningKey]) -> None:
    """Whatever it was to do, another does: what signs and what is next are never missing."""
    command = message.data
    key = present(SigningKey, world.get(SigningKey, command.kid))
    changed = [domain.signing_key.revoke(key, world.now)]
    if key.state is KeyState.ACTIVE:
        following = present(SigningKey, world.get(SigningKey, command.next_kid))
        changed.append(domain.signing_key.activate(following, world.now))
    if key.state in {KeyState.ACTIVE, KeyState.NEXT}:
        changed.append(_made(world, command.following, KeyState.NEXT, command.known_at))
    _save(world, changed, command.root)


@HANDLERS.on(EndSigningKey, _key, always_audited=True)
def end_signing_key(world: World, message: Message[EndSigningKey]) -> None:
    """Nothing is left that it signed, so nobody need believe it."""
    key = present(SigningKey, world.get(SigningKey, message.data.kid))
    _save(world, domain.signing_key.ended([key], world.now), message.data.root)


@HANDLERS.on(AnnounceSigningKey, _key)
def announce_signing_key(world: World, message: Message[AnnounceSigningKey]) -> None:
    """A new version without a change: every reader keeps the highest, so nobody minds who knows it already."""
    key = world.get(SigningKey, message.data.kid)
    if key is not None:
        _save(world, [key], message.data.root)


@HANDLERS.on(ResealSigningKey, _key)
def reseal_signing_key(world: World, message: Message[ResealSigningKey]) -> None:
    """Nobody is told: to everybody else the key is the same."""
    command, key = message.data, world.get(SigningKey, message.data.kid)
    if key is not None and key.sealed_private_key == command.was:
        world.save(replace(key, sealed_private_key=command.sealed))


@HANDLERS.on(KeepSecret, lambda m: [Ref(ServiceSecret, m.data.name)])
def keep_secret(world: World, message: Message[KeepSecret]) -> ServiceSecret:
    """Answers the secret that counts: the first one."""
    command = message.data
    known = world.get(ServiceSecret, command.name)
    return known or world.save(ServiceSecret(tenant_id=world.tenant_id, name=command.name, sealed=command.sealed))


@HANDLERS.on(ResealSecret, lambda m: [Ref(ServiceSecret, m.data.name)])
def reseal_secret(world: World, message: Message[ResealSecret]) -> None:
    """Only what is still as it was."""
    command, secret = message.data, world.get(ServiceSecret, message.data.name)
    if secret is not None and secret.sealed == command.was:
        world.save(replace(secret, sealed=command.sealed))
