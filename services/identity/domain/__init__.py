"""What identity decides: tenants, clients, sessions, signing keys, and what an access token grants, and what ends one. Pure."""

from services.identity.domain import (
    client,
    invitation,
    member,
    password_reset,
    revocation,
    role,
    second_factor,
    session,
    sign_in,
    signing_key,
    staff,
    tenant,
)

__all__ = [
    "client",
    "invitation",
    "member",
    "password_reset",
    "revocation",
    "role",
    "second_factor",
    "session",
    "sign_in",
    "signing_key",
    "staff",
    "tenant",
]
