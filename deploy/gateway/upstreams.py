"""The services behind the gateway: where they are, which of them are ready, and how many requests they are trusted with."""

import ipaddress
import socket
from typing import Any, Final

from deploy.gateway.plan import Plan, Upstream
from libs.common.silence import ASKED_AFTER_SECONDS, ASKED_EVERY_SECONDS, ASKED_TIMES, GIVEN_UP_SECONDS

IDLE_SECONDS: Final = 60
"""A connection nobody uses is closed here before the service does it (75 s), so that no request meets a closed one."""
_KEEPALIVE: Final = {
    "keepalive_time": ASKED_AFTER_SECONDS,
    "keepalive_interval": ASKED_EVERY_SECONDS,
    "keepalive_probes": ASKED_TIMES,
}
_USER_TIMEOUT: Final = (
    [
        {
            "level": socket.IPPROTO_TCP,
            "name": socket.TCP_USER_TIMEOUT,
            "int_value": GIVEN_UP_SECONDS * 1_000,
            "state": "STATE_PREBIND",
        }
    ]
    if hasattr(socket, "TCP_USER_TIMEOUT")
    else []
)
"""An API that is cut off in silence is not waited for until the time for an answer is over.

Linux alone can be told so. Elsewhere no connection would come about with an option that the kernel does not know.
"""
_ANY_METHOD: Final = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def clusters(plan: Plan) -> list[dict[str, Any]]:
    """One for each service."""
    return [_cluster(plan, service, [*upstreams]) for service, upstreams in plan.services.items()]


def _cluster(plan: Plan, service: str, upstreams: list[Upstream]) -> dict[str, Any]:
    endpoints = [{"endpoint": _endpoint(each)} for each in upstreams]
    return {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": service,
        "type": "STATIC" if all(_is_address(each.host) for each in upstreams) else "STRICT_DNS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": service, "endpoints": [{"lb_endpoints": endpoints}]},
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
            }
        ],
        "outlier_detection": _outliers(),
        "circuit_breakers": {
            "thresholds": [{"max_connections": 2000, "max_pending_requests": 1000, "max_requests": 4000, "max_retries": 50}]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _ANY_METHOD,
                "common_http_protocol_options": {"idle_timeout": f"{IDLE_SECONDS}s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        "upstream_connection_options": {"tcp_keepalive": _KEEPALIVE},
        "upstream_bind_config": {
            "socket_options": _USER_TIMEOUT,
            **({"source_address": {"address": plan.source, "port_value": 0}} if plan.source else {}),
        },
    }


def _outliers() -> dict[str, Any]:
    """Only whoever cannot be reached is left out: a 503 with `Retry-After` is a service that bounds itself, and knows why."""
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 5,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "5s",
        "max_ejection_percent": 50,
    }


def _endpoint(upstream: Upstream) -> dict[str, Any]:
    return {
        "address": {"socket_address": {"address": upstream.host, "port_value": upstream.port}},
        "health_check_config": {"port_value": upstream.ops_port},
    }


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
