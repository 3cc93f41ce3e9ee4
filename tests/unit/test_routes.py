from importlib import import_module

import pytest
from fastapi import Response

from libs.common.auth import PERMISSIONS
from libs.common.database import SERVICES
from libs.common.http.api import api_app
from libs.common.http.routes import GuardedRoute, Routes, UndeclaredPermissionError, guard, public

APIS = sorted(path.name for path in SERVICES.iterdir() if (path / "api.py").exists() or (path / "api").is_dir())
PUBLIC = {
    ("identity", "/.well-known/jwks.json"),
    ("identity", "/.well-known/oauth-authorization-server"),
    ("identity", "/oauth/token"),
    ("identity", "/oauth/revoke"),
    ("identity", "/oauth/introspect"),
    ("identity", "/v1/sessions"),
    ("payments", "/v1/webhooks/stripe/{tenant_id}"),
}
"""Every route that anybody may call (contracts §2 and §5)."""
OPERATORS = {"/livez", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json"}


async def endpoint() -> Response:
    return Response()


def test_a_route_that_declares_no_permission_keeps_its_service_from_starting() -> None:
    with pytest.raises(UndeclaredPermissionError, match=r"/v1/forgotten \(endpoint\) declares no permission"):
        Routes().get("/v1/forgotten")(endpoint)


def test_a_route_that_declares_one_or_that_it_is_public_is_told_of_in_the_services_document() -> None:
    routes = Routes()
    routes.get("/v1/things")(guard("carts:read")(lambda: endpoint()))
    routes.post("/v1/things")(guard("carts:write", idempotent=True)(lambda: endpoint()))
    routes.get("/v1/open")(public(lambda: endpoint()))
    paths = api_app("test", routes).openapi()["paths"]
    assert paths["/v1/things"]["get"]["security"] == [{"bearer": ["carts:read"]}]
    assert paths["/v1/things"]["post"]["x-idempotency-key"] == "required"
    assert "security" not in paths["/v1/open"]["get"]


@pytest.mark.parametrize("service", APIS)
def test_every_route_of_every_service_is_guarded_by_a_permission_that_exists(service: str) -> None:
    app = api_app(service, import_module(f"services.{service}.api").ROUTES)
    guarded = [route for route in app.routes if isinstance(route, GuardedRoute)]
    assert guarded
    others = {getattr(route, "path", "?") for route in app.routes if not isinstance(route, GuardedRoute)}
    assert others <= OPERATORS
    for route in guarded:
        permission = route.rule.permission
        assert permission in PERMISSIONS or (permission is None and (service, route.path) in PUBLIC), route.path
