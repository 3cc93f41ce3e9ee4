"""Apache Kafka as a child process: one KRaft node on the loopback, on the Java runtime that comes as a wheel."""

import asyncio
import logging
import os
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from deploy.local.errors import ProcessError, StackError
from deploy.local.kafka_install import Installation, installed, java_environment, server_properties
from deploy.local.ports import HOST
from deploy.local.processes import Child, dying_with_parent
from deploy.local.state import Home

_START_SECONDS: Final = 60
_POLL_SECONDS: Final = 0.05


class EmbeddedKafka:
    """One broker whose log lies in the state directory."""

    def __init__(
        self,
        home: Home,
        port: int,
        controller_port: int,
        *,
        say: Callable[[str], None] = lambda _: None,
        on_exit: Callable[[Child], None] | None = None,
    ) -> None:
        """Describe the broker; nothing is touched before `start`."""
        self.port = port
        self._home, self._controller_port, self._say, self._on_exit = home, controller_port, say, on_exit
        self._child: Child | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect first."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Java's process id while it runs."""
        return self._child.pid if self._child else None

    @property
    def running(self) -> bool:
        """Whether Java runs."""
        return self.pid is not None

    async def start(self) -> None:
        """Start the broker, installing Kafka on first use, and return when it serves requests."""
        kafka = await asyncio.to_thread(installed, self._say)
        configuration = write_cluster(kafka, self._home.path / "kafka", self.port, self._controller_port)
        self._child = Child(
            "kafka",
            [*dying_with_parent("TERM"), *kafka.broker(configuration)],
            environment=java_environment(),
            log=self._home.log("kafka"),
            on_exit=self._on_exit,
        )
        await self._child.start()
        await self._until_ready(self._child)

    async def stop(self) -> None:
        """Shut down in order, so that the next start has nothing to recover."""
        if self._child:
            await self._child.stop()

    async def kill(self) -> None:
        """End the broker as a crash would."""
        if self._child:
            await self._child.kill()

    async def _until_ready(self, broker: Child) -> None:
        answering = asyncio.create_task(ready(self.bootstrap_servers, seconds=_START_SECONDS))
        try:
            while not answering.done():
                if broker.pid is None:
                    raise broker.ended()
                await asyncio.wait({answering}, timeout=_POLL_SECONDS)
            await answering
        except TimeoutError:
            raise ProcessError("kafka", f"was not ready after {_START_SECONDS} s", broker.log_tail()) from None
        finally:
            answering.cancel()


def write_cluster(kafka: Installation, folder: Path, port: int, controller_port: int) -> Path:
    """Make the files of a cluster unless they are there, and return its configuration for these ports."""
    data = folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        draft = folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(kafka.format, draft)
        draft.rename(data)
    configuration = folder / "server.properties"
    configuration.write_text(server_properties(data, port, controller_port))
    return configuration


def client_options() -> dict[str, Any]:
    """Return the connection options for aiokafka that the environment asks for; none for the embedded broker."""
    names = {
        "security_protocol": "CARTWRIGHT_KAFKA_SECURITY_PROTOCOL",
        "sasl_mechanism": "CARTWRIGHT_KAFKA_SASL_MECHANISM",
        "sasl_plain_username": "CARTWRIGHT_KAFKA_SASL_USERNAME",
        "sasl_plain_password": "CARTWRIGHT_KAFKA_SASL_PASSWORD",
    }
    options: dict[str, Any] = {option: os.environ[name] for option, name in names.items() if name in os.environ}
    if options.get("security_protocol", "").endswith("SSL"):
        options["ssl_context"] = ssl.create_default_context(cafile=os.environ.get("CARTWRIGHT_KAFKA_SSL_CAFILE"))
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
