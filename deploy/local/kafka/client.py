"""Kafka as its clients reach it, whoever runs it: how they connect, and whether it answers."""

import asyncio
import logging
from typing import Any, Final

from deploy.local.errors import StackError

_POLL_SECONDS: Final = 0.05


def client_options() -> dict[str, Any]:
    """Return the connection options for aiokafka that the user's variables ask for, for a cluster that is not ours."""
    from libs.common.messaging.login import login  # aiokafka is loaded where it is needed
    from libs.common.settings import KafkaLogin, SettingsError

    try:
        return login(KafkaLogin.read())
    except SettingsError as error:
        raise StackError(str(error)) from error


async def ready(bootstrap_servers: str, *, seconds: float, **options: Any) -> None:
    """Return when the cluster answers with at least one broker; TimeoutError when it does not in time."""
    named = [each.strip().rpartition(":") for each in bootstrap_servers.split(",")]
    places = [(host.strip("[]"), int(port)) for host, _, port in named]
    async with asyncio.timeout(seconds):
        # A bare connection first: it is far cheaper than a client, and refused for most of the start.
        while not any([await _listening(host, port) for host, port in places]):  # noqa: ASYNC110 - another process tells no event
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
    """Check that the given cluster answers, and lets us in, for a stack that does not start its own."""
    from aiokafka.conn import collect_hosts

    from libs.common.messaging.login import refused_at

    options = client_options()
    try:
        await ready(bootstrap_servers, seconds=10, **options)
    except (TimeoutError, ValueError) as error:
        for host, port, _ in collect_hosts(bootstrap_servers):
            if options["security_protocol"] != "PLAINTEXT" and (reason := await refused_at(host, port, options)):
                raise StackError(f"Kafka at {host}:{port} does not let us in: {reason}") from error
        raise StackError(f"no Kafka answers at {bootstrap_servers}: see CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS") from error
