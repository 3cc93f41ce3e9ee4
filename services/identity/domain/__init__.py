"""What identity decides: tenants, clients, sessions, signing keys, and what an access token grants. Pure."""

from services.identity.domain import client, session, signing_key, tenant

__all__ = ["client", "session", "signing_key", "tenant"]
