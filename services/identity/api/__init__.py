"""HTTP in: tenants and clients for the platform and its tenants, sessions for shoppers, tokens for everybody (OAuth 2.0)."""

from libs.common.http.routes import Routes
from services.identity.api import api_keys, clients, handed_back, oauth, sessions, signing_keys, tenants

ROUTES = Routes()
of_tenants = (tenants.ROUTES, clients.ROUTES, api_keys.ROUTES, sessions.ROUTES)
for part in (*of_tenants, oauth.ROUTES, handed_back.ROUTES, signing_keys.ROUTES):
    ROUTES.include_router(part)
