"""HTTP in: tenants and clients for the platform and its tenants, sessions for shoppers, tokens for everybody (OAuth 2.0)."""

from libs.common.http.audit import audit_routes
from libs.common.http.routes import Routes
from services.identity.api import clients, oauth, sessions, tenants

ROUTES = Routes()
for part in (tenants.ROUTES, clients.ROUTES, sessions.ROUTES, oauth.ROUTES):
    ROUTES.include_router(part)
ROUTES.include_router(audit_routes())
