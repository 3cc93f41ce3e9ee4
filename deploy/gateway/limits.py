"""How often one address may ask, as Envoy counts it: in memory, one bucket an address and route."""

from typing import Any, Final

from deploy.gateway.declared import Declared
from deploy.gateway.plan import Limits, Rate

FILTER: Final = "envoy.filters.http.local_ratelimit"
_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_EVERYBODY: Final = Rate(100_000, 1_000_000)
"""The bucket of all together, which Envoy demands: none that is ever empty before the machine is at its end."""
_ADDRESS: Final = {"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}}
"""One subscriber has a network of IPv6 to himself."""


def filter_() -> dict[str, Any]:
    """The filter itself, which counts nothing where a route does not say so."""
    return {"name": FILTER, "typed_config": {"@type": _TYPE, "stat_prefix": "gateway"}}


def counting(limits: Limits, route: Declared) -> dict[str, Any]:
    """What a route says of it."""
    if route.counted == "nobody":
        return {}
    rate = limits.strangers if route.counted == "strangers" else limits.beginners
    policy = f'"address";q={rate.burst};w={-(-rate.burst // rate.per_second)}'
    return {
        FILTER: {
            "@type": _TYPE,
            "stat_prefix": f"gateway.{route.counted}",
            "token_bucket": _bucket(_EVERYBODY),
            "filter_enabled": {"default_value": {"numerator": 100}},
            "filter_enforced": {"default_value": {"numerator": 100}},
            "max_dynamic_descriptors": limits.addresses,
            "rate_limits": [{"actions": [_ADDRESS]}],
            "descriptors": [{"entries": [{"key": "masked_remote_address"}], "token_bucket": _bucket(rate)}],
            "response_headers_to_add": [
                {"header": {"key": "retry-after", "value": "1"}},
                {"header": {"key": "ratelimit-policy", "value": policy}},
                {"header": {"key": "ratelimit", "value": '"address";r=0;t=1'}},
            ],
        }
    }


def _bucket(rate: Rate) -> dict[str, Any]:
    """Where it is many, filled ten times a second: nobody then waits a second for what comes in a tenth."""
    is_many = rate.per_second >= 100
    fill = {"tokens_per_fill": rate.per_second // 10, "fill_interval": "0.1s"}
    return {"max_tokens": rate.burst, **(fill if is_many else {"tokens_per_fill": rate.per_second, "fill_interval": "1s"})}
