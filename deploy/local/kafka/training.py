"""The exercise a broker is put through once, so that Java's cache holds the classes that daily work needs."""

import asyncio
import logging
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from deploy.local.access import declared_access
from deploy.local.kafka.client import ready
from deploy.local.kafka.cluster import Installation, java_environment, write_cluster
from deploy.local.kafka.listeners import admin_options, listeners, sasl_listener
from deploy.local.kafka.wall import raise_wall
from deploy.local.ports import spare_port
from deploy.local.principals import SaslListener
from deploy.local.state import Home

_STOP_SECONDS: Final = 120
_SERVICE: Final = "checkout"
_TOPIC: Final = "order.v1"


def exercise(kafka: Installation, folder: Path, flag: str) -> None:
    """Start a broker with `flag`, produce and consume a little, and let it end in order."""
    home, ports = Home(folder), {name: spare_port() for name in ("kafka", "kafka.sasl", "kafka.controller")}
    home.path.mkdir(parents=True)
    sasl = sasl_listener(home, ports["kafka.sasl"])
    configuration = write_cluster(kafka, folder, listeners(home, ports, "publishers"))
    command = kafka.java(flag, main=("kafka.Kafka", str(configuration)))
    log = (folder / "log").open("wb")
    with log, subprocess.Popen(command, env=java_environment(), stdout=log, stderr=log) as broker:
        try:
            with suppress(TimeoutError, OSError):
                asyncio.run(_work(sasl))
            broker.terminate()
            broker.wait(_STOP_SECONDS)  # Java writes the cache as it ends
        except BaseException:
            broker.kill()
            raise


async def _work(sasl: SaslListener) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    options, users = admin_options(sasl), {name: each.secret() for name, each in sasl.principals.items()}
    await ready(**options, seconds=60)
    await raise_wall(options, declared_access(), users=users, anonymous=True)
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    await admin.create_topics([NewTopic(_TOPIC, 4, 1, topic_configs={"cleanup.policy": "compact"})])
    await admin.close()
    async with asyncio.timeout(30):
        async with AIOKafkaProducer(**sasl.client(_SERVICE), enable_idempotence=True) as producer:
            for n in range(50):
                await producer.send_and_wait(_TOPIC, b"value", key=b"%d" % n)
        async with AIOKafkaConsumer(_TOPIC, **sasl.client(_SERVICE), group_id=_SERVICE, auto_offset_reset="earliest") as consumer:
            await consumer.getone()
            await consumer.commit()
