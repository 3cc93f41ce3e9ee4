"""Prometheus beside a stack: whom it asks there."""

from deploy.local.ports import HOST
from deploy.local.stack import Stack
from deploy.observability.scraping import INSTANCES


def places(stack: Stack) -> dict[str, str]:
    """Where each process and the gateway tell their metrics."""
    ports = {f"{service}-{kind}": f"{service}.{'ops' if kind == 'api' else kind}" for service, kind in INSTANCES}
    if stack.description().gateway_url:
        ports["gateway"] = "gateway.ops"
    return {name: f"{HOST}:{stack._ports[port]}" for name, port in ports.items()}
