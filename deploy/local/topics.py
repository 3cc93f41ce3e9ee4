"""Creates the topics of `deploy/topics.yaml` that are missing."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from deploy.local.errors import StackError
from deploy.local.state import ROOT

Where = Literal["local", "production"]

TOPICS: Final = Path("deploy") / "topics.yaml"
TOPICS_FILE: Final = ROOT / TOPICS


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it is declared, for one kind of cluster."""

    name: str
    publisher: str
    partitions: int
    replication: int
    settings: dict[str, str]


def declared_topics(file: Path = TOPICS_FILE, where: Where = "local") -> list[Topic]:
    """Read the declaration."""
    import yaml

    declaration = yaml.safe_load(file.read_text())
    return [_topic(name, declaration["defaults"] | own, where) for name, own in declaration["topics"].items()]


async def create_topics(bootstrap_servers: str, topics: list[Topic], prefix: str = "", **options: Any) -> None:
    """Create the topics that are missing. One that exists keeps the partitions it has, since its keys' order hangs on them.

    `options` are those of an aiokafka client that may create topics.
    """
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    from aiokafka.errors import KafkaError, TopicAlreadyExistsError

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **options)
    try:
        await admin.start()
        present = set(await admin.list_topics())
        missing = [topic for topic in topics if prefix + topic.name not in present]
        if missing:
            response = await admin.create_topics(
                [NewTopic(prefix + t.name, t.partitions, t.replication, topic_configs=t.settings) for t in missing]
            )
            _require_created(response.topic_errors, ignored=TopicAlreadyExistsError.errno)
    except (KafkaError, OSError) as error:
        raise StackError(f"the topics cannot be created at {bootstrap_servers}: {error}") from error
    finally:
        await admin.close()


def _topic(name: str, declared: dict[str, Any], where: Where) -> Topic:
    settings = {
        "cleanup.policy": declared["cleanup"],
        "max.message.bytes": str(declared["max_message_bytes"]),
        "min.insync.replicas": str(declared["min_in_sync_replicas"][where]),
    }
    if "delete" in declared["cleanup"]:
        settings["retention.ms"] = str(declared["retention_hours"] * 3_600_000)
    return Topic(name, declared["publisher"], declared["partitions"][where], declared["replication"][where], settings)


def _require_created(answers: list[tuple[Any, ...]], *, ignored: int) -> None:
    for name, code, *reason in answers:
        if code not in (0, ignored):
            raise StackError(f"the topic {name} cannot be created: {reason[0] if reason else f'error {code}'}")
