"""Who makes a request, as the audit trail tells it."""

from ipaddress import ip_address, ip_network
from typing import Final

from starlette.types import Scope

from libs.common.auth import Principal
from libs.common.http.rates import address_of
from libs.common.origin import Origin

KEPT_BITS: Final = {4: 24, 6: 48}
"""So much of an address tells an office or a provider from another, and nobody's own line (ADR 0032)."""


def origin_of(principal: Principal | None, scope: Scope, request_id: str) -> Origin:
    """Whoever has proved who they are; a stranger by their network alone."""
    network = network_of(address_of(scope))
    if principal is None:
        return Origin(actor="", address=network, request_id=request_id)
    return Origin(
        actor=str(principal.subject),
        client_id=principal.client_id,
        session_id=principal.session_id,
        address=network,
        request_id=request_id,
        by_platform=principal.is_platform_operator,
        by_shopper=principal.is_shopper,
    )


def network_of(address: str) -> str:
    """The network of an address, or of a network; nothing where it is neither."""
    try:
        first = ip_address(address.partition("/")[0])
    except ValueError:
        return ""
    return str(ip_network((first, KEPT_BITS[first.version]), strict=False))
