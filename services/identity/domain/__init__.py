"""What identity decides: tenants, clients, sessions, signing keys, and what an access token grants, and what ends one. Pure."""

from services.identity.domain import client, revocation, session, signing_key, tenant

__all__ = ["client", "revocation", "session", "signing_key", "tenant"]
