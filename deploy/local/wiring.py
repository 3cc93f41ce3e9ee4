"""What the processes of a stack are told of each other, and of what the user has set."""

import secrets
from collections.abc import Mapping

from deploy.local import gateway
from deploy.local.environment import Wiring, variable
from deploy.local.infrastructure import Infrastructure
from deploy.local.master_keys import MasterKeyFiles
from deploy.local.services import address, new_root_key
from deploy.local.state import Home


def wired(
    home: Home,
    infrastructure: Infrastructure,
    ports: Mapping[str, int],
    prefixes: tuple[str, str],
    stripe: tuple[str | None, str | None],
    *,
    cells: tuple[str, ...] = (),
    has_gateway: bool,
) -> Wiring:
    """Wire a stack whose databases and topics have these prefixes. `stripe`: another provider's address and key."""
    secret, (stripe_api_base, stripe_api_key) = home.secret, stripe
    secret("platform-client")
    return Wiring(
        admin_url=infrastructure.admin_url,
        bootstrap_servers=infrastructure.bootstrap_servers,
        issuer=variable("ISSUER") or address(ports.get("identity.api", 0)),
        issuer_root_key=variable("ISSUER_ROOT_KEY") or secret("issuer-root-key", new_root_key),
        master_keys=MasterKeyFiles(home).environment,
        stripe_api_base=stripe_api_base or address(ports["stripe"]),
        stripe_api_key=stripe_api_key or secret("stripe-api-key", lambda: f"sk_test_{secrets.token_hex(16)}"),
        stripe_webhook_secret=variable("STRIPE_WEBHOOK_SECRET")
        or secret("stripe-webhook-secret", lambda: f"whsec_{secrets.token_hex(16)}"),
        stripe_connect_client_id=variable("STRIPE_CONNECT_CLIENT_ID") or ("" if stripe_api_base else "ca_local"),
        console_urls=gateway.consoles(ports["gateway"]) if has_gateway else "",
        shop_urls=gateway.shops(ports["gateway"]) if has_gateway else "",
        platform_secret_file=home.secret_file("platform-client"),
        database_prefix=prefixes[0],
        cells=cells,
        topic_prefix=prefixes[1],
        gateway_address=gateway.SOURCE if has_gateway else "",
        kafka_sasl=infrastructure.sasl,
    )
