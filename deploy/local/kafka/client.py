"""Kafka as its clients reach it, whoever runs it: how they connect, and whether it answers."""

import asyncio
import logging
import ssl
from typing import Any, Final

from deploy.local.environment import variable
from deploy.local.errors import StackError
from deploy.local.principals import MECHANISM

_POLL_SECONDS: Final = 0.05


def client_options() -> dict[str, Any]:
    """Return the connection options for aiokafka that the user's variables ask for, for a cluster that is not ours."""
    protocol = variable("KAFKA_SECURITY_PROTOCOL") or "PLAINTEXT"
    options: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        options["ssl_context"] = ssl.create_default_context(cafile=variable("KAFKA_SSL_CAFILE"))
    if protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": variable("KAFKA_SASL_MECHANISM") or MECHANISM,
            "sasl_plain_username": variable("KAFKA_SASL_USERNAME"),
            "sasl_plain_password": variable("KAFKA_SASL_PASSWORD"),
        }
    return options


async def ready(bootstrap_servers: str, *, seconds: float, **options: Any) -> None:
    """Return when the cluster answers with at least one broker; TimeoutError when it does not in time."""
    host, _, port = bootstrap_servers.partition(",")[0].rpartition(":")
    async with asyncio.timeout(seconds):
        # A bare connection first: it is far cheaper than a client, and refused for most of the start.
        while not await _listening(host, int(port)):  # noqa: ASYNC110 - another process tells no event
            await asyncio.sleep(_POLL_SECONDS)
        while not await _serving(bootstrap_servers, options):  # noqa: ASYNC110 - as above
            await asyncio.sleep(_POLL_SECONDS)


async def _listening(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def _serving(bootstrap_servers: str, options: dict[str, Any]) -> bool:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs every refused attempt
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=5000, **options)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        await admin.close()


async def require_broker(bootstrap_servers: str) -> None:
    """Check that the given cluster answers, for a stack that does not start its own."""
    try:
        await ready(bootstrap_servers, seconds=10, **client_options())
    except (TimeoutError, ValueError) as error:
        raise StackError(f"no Kafka answers at {bootstrap_servers}: see CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS") from error
