"""What identity decides: tenants, clients and their keys, sessions, signing keys, what an access token grants, and what ends one.

Pure.
"""

from services.identity.domain import api_key, client, revocation, session, signing_key, tenant

__all__ = ["api_key", "client", "revocation", "session", "signing_key", "tenant"]
