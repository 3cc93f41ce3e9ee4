"""What may be asked of a gateway from other machines: whether it is ready, and its metrics. The rest stays on the loopback."""

from typing import Any, Final

from deploy.gateway.plan import Plan

_TYPE: Final = "type.googleapis.com/envoy"
_NAME: Final = "watched"
_PATHS: Final = ("/ready", "/stats/prometheus")


def watched(plan: Plan) -> dict[str, Any]:
    """A listener for these two paths, and the operators' own port behind it. Both stand from the start, before any other."""
    return {"listeners": [_listener(plan)], "clusters": [_own_port(plan)]}


def _listener(plan: Plan) -> dict[str, Any]:
    address: dict[str, Any] = {"address": plan.host, "port_value": plan.watched_port}
    routes = [{"match": _reading(path), "route": {"cluster": _NAME, "timeout": "5s"}} for path in _PATHS]
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": _NAME,
        "request_headers_timeout": "5s",
        "stream_idle_timeout": "10s",
        "common_http_protocol_options": {"idle_timeout": "60s"},
        "route_config": {"virtual_hosts": [{"name": _NAME, "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": _NAME,
        "address": {"socket_address": address | ({"ipv4_compat": True} if plan.host == "::" else {})},
        # Whoever watches is answered even when as many customers are connected as may be.
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }


def _reading(path: str) -> dict[str, Any]:
    return {"path": path, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]}


def _own_port(plan: Plan) -> dict[str, Any]:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": plan.ops_port}}}
    return {
        "name": _NAME,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": _NAME, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
