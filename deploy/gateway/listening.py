"""Who is let in, and as what: the listener, its limits, and the filters every request goes through."""

from typing import Any, Final

from deploy.gateway import limits, refusals, tokens
from deploy.gateway.plan import Certificates, Plan
from deploy.gateway.routing import NAME

HEADERS: Final = 100
HEAD_KIB: Final = 32
BODY_BYTES: Final = 2_000_000
"""As the services have it themselves: what one of them would not read is not sent to it."""
HEAD_SECONDS: Final = 10
REQUEST_SECONDS: Final = 130
"""For a whole request: the largest body at 16 KiB a second."""
IDLE_SECONDS: Final = 60
"""Without a byte in either direction. An event stream sends one every 15 s."""

SPOKEN_FOR: Final = (
    *("x-user-id", "x-tenant-id", "x-scopes", "x-gateway", "x-jwt-payload", "x-principal", "x-roles"),
    *("forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip", "x-client-ip", "x-cluster-client-ip"),
    *("x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-user", "x-original-url", "x-rewrite-url"),
    *("x-http-method-override", "x-http-method", "x-method-override", "x-client-trace-id"),
)
"""What only ever a proxy says of a caller: from the caller itself it is removed before anybody reads it."""
_STEERING: Final = {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}
"""And so is what this very one would do as it is told by."""

_TYPE: Final = "type.googleapis.com/envoy"
_MANAGER: Final = f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def listeners(plan: Plan) -> list[dict[str, Any]]:
    """The one over TCP, and where HTTP/3 is spoken the one over UDP."""
    found = [_listener(plan, "tcp", {"transport_socket": _tls(plan)} if plan.certificates else {}, "AUTO")]
    if plan.has_http3:
        quic = {"transport_socket": _tls(plan, quic=True)}
        found.append(_listener(plan, "udp", quic, "HTTP3") | {"udp_listener_config": {"quic_options": {}}})
    return found


def _listener(plan: Plan, kind: str, secured: dict[str, Any], codec: str) -> dict[str, Any]:
    address = {"address": plan.host, "port_value": plan.port, **({"protocol": "UDP"} if kind == "udp" else {})}
    address |= {"ipv4_compat": True} if plan.host == "::" else {}
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(plan, codec)}
    return {
        "@type": f"{_TYPE}.config.listener.v3.Listener",
        "name": f"customers.{kind}",
        "address": {"socket_address": address},
        # Two gateways on one port would share its connections in silence; HTTP/3 is spread over workers by nothing else.
        "enable_reuse_port": kind == "udp",
        "per_connection_buffer_limit_bytes": 65_536,
        "filter_chains": [{"filters": [manager], **secured}],
    }


def _manager(plan: Plan, codec: str) -> dict[str, Any]:
    return {
        "@type": _MANAGER,
        "stat_prefix": "customers",
        "codec_type": codec,
        "use_remote_address": True,
        "xff_num_trusted_hops": plan.trusted_hops,
        "skip_xff_append": True,
        "internal_address_config": {},
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": False,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "strip_trailing_host_dot": True,
        "max_request_headers_kb": HEAD_KIB,
        "request_timeout": f"{REQUEST_SECONDS}s",
        "request_headers_timeout": f"{HEAD_SECONDS}s",
        "stream_idle_timeout": f"{IDLE_SECONDS}s",
        "delayed_close_timeout": "1s",
        "drain_timeout": "5s",
        "common_http_protocol_options": {
            "idle_timeout": "75s",
            "max_headers_count": HEADERS,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http_protocol_options": {"allow_absolute_url": False},
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "request_id_extension": {
            "typed_config": {
                "@type": f"{_TYPE}.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "pack_trace_reason": False,
            }
        },
        "early_header_mutation_extensions": [_cleaning(plan)],
        "access_log": [_log()],
        "local_reply_config": refusals.mapping(),
        "rds": {"route_config_name": NAME, "config_source": plan.file("routes.json")},
        "http_filters": _filters(plan),
    }


def _cleaning(plan: Plan) -> dict[str, Any]:
    believed = () if plan.trusted_hops else ("x-forwarded-for", "x-forwarded-proto")
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [_STEERING, *({"remove": name} for name in (*SPOKEN_FOR, *believed)), {"append": tokens.unique()}],
        },
    }


def _filters(plan: Plan) -> list[dict[str, Any]]:
    return [
        *tokens.filters(plan),
        limits.filter_(),
        {
            "name": "envoy.filters.http.buffer",
            "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": BODY_BYTES},
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": f"{_TYPE}.extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": True,
            },
        },
    ]


def _log() -> dict[str, Any]:
    """A line a request. Routes are told by their template: no id, no address in a query, nothing that somebody typed."""
    line = {
        "at": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        "route": "%ROUTE_NAME%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "detail": "%RESPONSE_CODE_DETAILS%",
        "ms": "%DURATION%",
        "service_ms": "%RESPONSE_DURATION%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "service": "%UPSTREAM_CLUSTER%",
        "traceparent": "%REQ(TRACEPARENT)%",
    }
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": line},
        },
    }


def _tls(plan: Plan, *, quic: bool = False) -> dict[str, Any]:
    """The certificate is asked for by name, so that a new one is taken up as soon as its files are moved into place."""
    common = {
        "tls_certificate_sds_secret_configs": [{"name": NAME, "sds_config": plan.file("certificates.json")}],
        "alpn_protocols": ["h3"] if quic else ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3" if quic else "TLSv1_2"},
    }
    context = {"@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": common}
    if not quic:
        return {"name": "envoy.transport_sockets.tls", "typed_config": context}
    wrapped = {name: value for name, value in context.items() if name != "@type"}
    quic_type = f"{_TYPE}.extensions.transport_sockets.quic.v3.QuicDownstreamTransport"
    return {"name": "envoy.transport_sockets.quic", "typed_config": {"@type": quic_type, "downstream_tls_context": wrapped}}


def secrets(certificates: Certificates) -> list[dict[str, Any]]:
    """The certificate by its name."""
    chain, key = ({"filename": str(file)} for file in (certificates.chain, certificates.key))
    watched = {"path": str(certificates.chain.parent)}
    certificate = {"certificate_chain": chain, "private_key": key, "watched_directory": watched}
    return [{"@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.Secret", "name": NAME, "tls_certificate": certificate}]
