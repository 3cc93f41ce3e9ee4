"""How large a batch a topic takes."""

from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType


async def limit_topic(topic: str, max_bytes: int, **options: Any) -> None:
    """Change it. A broker hears of it a moment later."""
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    try:
        change = {"max.message.bytes": str(max_bytes)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=change)])
    finally:
        await admin.close()
