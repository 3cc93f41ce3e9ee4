"""Tokens at the gateway: what is certainly none of ours goes no further. Everything else is the services' to judge (ADR 0037).

They know what is revoked, who certified a key, and what a token must be like; here only the signature is looked at, with keys
that are known already. So a token under a key that is too new to be known here is let through, and no rotation is felt.
"""

from typing import Any, Final

from deploy.gateway.declared import Declared
from deploy.gateway.plan import Plan

_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http"
_NAME: Final = "envoy.filters.http.jwt_authn"
_FAILED: Final = "failed"
_KEPT_SECONDS: Final = 30
"""How long keys are kept before they are fetched again, which happens beside the requests."""
_ASKED: Final = "asked"
_UNIQUE: Final = "x-gateway-unique"

_FORGED: Final = (
    "Jwt verification fails",
    "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
    "Jwt issuer is not configured",
    "Jwt header [alg] is not supported",
    "Jwt header [alg] field is required and must be a string",
    "Jwt header is an invalid JSON",
    "Jwt header is an invalid Base64url encoded",
    "Jwt payload is an invalid JSON",
    "Jwt payload is an invalid Base64url encoded",
    "Jwt signature is an invalid Base64url encoded",
)
"""In Envoy's words. That a key is not known, that a token is over or for somebody else is not among them."""

_LUA: Final = """
local forged = {%s}
function envoy_on_request(handle)
  local headers = handle:headers()
  if not headers:get("traceparent") then
    local id = string.gsub(headers:get("%s"), "-", "")
    headers:add("traceparent", "00-" .. id .. "-" .. string.sub(id, 17) .. "-01")
  end
  headers:remove("%s")
  local seen = handle:streamInfo():dynamicMetadata():get("%s")
  if seen and seen["%s"] and forged[seen["%s"]["message"]] then
    handle:respond({[":status"] = "401"}, "")
  end
end
"""
"""Begins a trace where the caller has none (Lua's own random numbers are the same after each start), and turns forgers away."""


def unique() -> dict[str, Any]:
    """The header a trace is begun of; it goes no further than the filter below."""
    return {"header": {"key": _UNIQUE, "value": "%UNIQUE_ID%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def filters(plan: Plan) -> list[dict[str, Any]]:
    """One that looks, and one that acts on what was seen."""
    known = ", ".join(f'["{each}"] = true' for each in _FORGED)
    code = _LUA % (known, _UNIQUE, _UNIQUE, _NAME, _FAILED, _FAILED)
    acting = {
        "name": "envoy.filters.http.lua",
        "typed_config": {"@type": f"{_TYPE}.lua.v3.Lua", "default_source_code": {"inline_string": code}},
    }
    return [*([_looking(plan)] if plan.issuer else []), acting]


def asked(plan: Plan, route: Declared) -> dict[str, Any]:
    """What a route says of it: only where a token is needed is one looked at."""
    if not plan.issuer or route.counted == "strangers":
        return {}
    return {_NAME: {"@type": f"{_TYPE}.jwt_authn.v3.PerRouteConfig", "requirement_name": _ASKED}}


def _looking(plan: Plan) -> dict[str, Any]:
    provider = {
        "issuer": plan.issuer,
        "from_headers": [{"name": "Authorization", "value_prefix": "Bearer "}],
        "forward": True,
        "failed_status_in_metadata": _FAILED,
        "jwt_cache_config": {"jwt_cache_size": 10_000},
        "remote_jwks": {
            "http_uri": {"uri": "http://identity/.well-known/jwks.json", "cluster": "identity", "timeout": "2s"},
            "cache_duration": f"{_KEPT_SECONDS}s",
            "async_fetch": {"fast_listener": True, "failed_refetch_duration": "1s"},
        },
    }
    either = {"requires_any": {"requirements": [{"provider_name": "ours"}, {"allow_missing_or_failed": {}}]}}
    return {
        "name": _NAME,
        "typed_config": {
            "@type": f"{_TYPE}.jwt_authn.v3.JwtAuthentication",
            "providers": {"ours": provider},
            "requirement_map": {_ASKED: either},
        },
    }
