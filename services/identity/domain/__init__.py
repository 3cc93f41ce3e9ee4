"""What identity decides: who may sell, work and call here, with what, and what an access token grants and what ends one. Pure."""

from services.identity.domain import (
    api_key,
    client,
    console,
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
    "api_key",
    "client",
    "console",
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
