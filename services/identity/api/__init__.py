"""HTTP in: tenants with their clients and staff, sessions for shoppers, and tokens for everybody (OAuth 2.0)."""

from libs.common.http.audit import audit_routes
from libs.common.http.routes import Facing, Routes
from services.identity.api import (
    api_keys,
    authorize,
    clients,
    exports,
    handed_back,
    invitations,
    members,
    oauth,
    password_resets,
    roles,
    second_factors,
    sessions,
    signing_keys,
    standing,
    storefronts,
    tenants,
)

ROUTES = Routes(Facing.CUSTOMERS)
PARTS = (
    *(tenants, standing, storefronts, exports, clients, api_keys, sessions, oauth, authorize, handed_back),
    *(members, invitations, roles, second_factors, password_resets, signing_keys),
)
for part in PARTS:
    ROUTES.include_router(part.ROUTES)
ROUTES.include_router(audit_routes())
