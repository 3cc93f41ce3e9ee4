"""Creates the topics of `deploy/topics.yaml` that are missing."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from deploy.local.errors import StackError
from deploy.local.state import ROOT

Where = Literal["local", "production"]

TOPICS: Final = Path("deploy") / "topics.yaml"
TOPICS_FILE: Final = ROOT / TOPICS

_SET_ON_THE_TOPIC: Final = 1
"""As Kafka's protocol numbers it: not the broker's setting, nor Kafka's own."""


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


@dataclass(frozen=True, slots=True)
class Difference:
    """What one topic lacks of what is declared."""

    topic: Topic
    name: str
    """With the deployment's prefix."""
    settings: dict[str, str]
    """All that it is to be set to, what others have set too; empty where that is well."""
    fixed: tuple[str, ...] = ()
    """What is otherwise than declared and stays so: a key's order hangs on the partitions."""
    is_missing: bool = False

    def lines(self) -> Iterator[str]:
        """Say it."""
        if self.is_missing:
            topic = self.topic
            settings = ", ".join(f"{name}={value}" for name, value in topic.settings.items())
            yield f"+ topic {self.name}: {topic.partitions} partitions, {topic.replication} replicas, {settings}"
        elif self.settings:
            yield f"~ topic {self.name}: {', '.join(f'{name}={self.settings[name]}' for name in self.topic.settings)}"
        yield from (f"! topic {self.name}: {each}" for each in self.fixed)


async def provide_topics(
    bootstrap_servers: str, topics: list[Topic], prefix: str = "", *, changes: bool, **options: Any
) -> list[Difference]:
    """Make topics what is declared, and answer what they lacked; unless there shall be `changes`, only answer."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource
    from aiokafka.errors import KafkaError

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **options)
    try:
        await admin.start()
        found = [each for each in await _differences(admin, topics, prefix) if [*each.lines()]]
        altered = [ConfigResource("topic", each.name, each.settings) for each in found if each.settings]
        if changes and altered:
            for answer in await admin.alter_configs(altered):
                for code, reason, _, name in answer.resources:
                    if code:
                        raise StackError(f"the settings of {name} cannot be changed: {reason or f'error {code}'}")
    except (KafkaError, OSError) as error:
        raise StackError(f"the topics at {bootstrap_servers} cannot be seen to: {error}") from error
    finally:
        await admin.close()
    if changes:
        await create_topics(bootstrap_servers, [each.topic for each in found if each.is_missing], prefix, **options)
    return found


async def _differences(admin: Any, topics: list[Topic], prefix: str) -> list[Difference]:
    from aiokafka.admin.config_resource import ConfigResource

    present = {prefix + topic.name for topic in topics} & {*await admin.list_topics()}
    layouts = {each["topic"]: each["partitions"] for each in await admin.describe_topics(sorted(present))} if present else {}
    resources = [ConfigResource("topic", name) for name in sorted(present)]
    held = {
        name: {key: value for key, value, _, source, *_ in entries if source == _SET_ON_THE_TOPIC}
        for answer in (await admin.describe_configs(resources) if resources else [])
        for _, _, _, name, entries in answer.resources
    }
    return [_difference(topic, prefix + topic.name, layouts, held) for topic in topics]


def _difference(topic: Topic, name: str, layouts: Mapping[str, Any], held: Mapping[str, Mapping[str, str]]) -> Difference:
    if name not in layouts:
        return Difference(topic, name, {}, is_missing=True)
    partitions, own = layouts[name], dict(held.get(name, {}))
    replicas = min(len(each["replicas"]) for each in partitions)
    fixed = []
    if len(partitions) != topic.partitions:
        fixed.append(f"it has {len(partitions)} partitions, declared are {topic.partitions}")
    if replicas != topic.replication:
        fixed.append(f"it has {replicas} replicas, declared are {topic.replication}: kafka-reassign-partitions.sh changes that")
    settings = {} if topic.settings.items() <= own.items() else own | topic.settings
    return Difference(topic, name, settings, tuple(fixed))


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
