"""The exercise a broker is put through once, so that Java's cache holds the classes that daily work needs."""

import asyncio
import logging
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from deploy.local.kafka.client import ready
from deploy.local.kafka.cluster import Installation, java_environment, write_cluster
from deploy.local.ports import HOST, spare_port

_STOP_SECONDS: Final = 120
_TOPIC: Final = "training"


def exercise(kafka: Installation, folder: Path, flag: str) -> None:
    """Start a broker with `flag`, produce and consume a little, and let it end in order."""
    port = spare_port()
    configuration = write_cluster(kafka, folder, port, spare_port())
    command = kafka.java(flag, main=("kafka.Kafka", str(configuration)))
    log = (folder / "log").open("wb")
    with log, subprocess.Popen(command, env=java_environment(), stdout=log, stderr=log) as broker:
        try:
            with suppress(TimeoutError, OSError):
                asyncio.run(_work(f"{HOST}:{port}"))
            broker.terminate()
            broker.wait(_STOP_SECONDS)  # Java writes the cache as it ends
        except BaseException:
            broker.kill()
            raise


async def _work(bootstrap_servers: str) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    await ready(bootstrap_servers, seconds=60)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(_TOPIC, 4, 1, topic_configs={"cleanup.policy": "compact"})])
    await admin.close()
    async with asyncio.timeout(30):
        async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True) as producer:
            for n in range(50):
                await producer.send_and_wait(_TOPIC, b"value", key=b"%d" % n)
        async with AIOKafkaConsumer(
            _TOPIC, bootstrap_servers=bootstrap_servers, group_id=_TOPIC, auto_offset_reset="earliest"
        ) as consumer:
            await consumer.getone()
            await consumer.commit()
