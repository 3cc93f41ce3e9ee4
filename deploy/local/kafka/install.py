"""Apache Kafka's own jars, fetched once per installation, checked against the lock, and made to start fast.

What it makes lies in the virtual environment, beside the packages it belongs with, and is shared by every cluster:
`libs/` (the jars), `format/` (a formatted, empty log directory to copy) and `kafka.aot` (Java's cache of loaded and
linked classes, which cuts the start to a third).
"""

import fcntl
import hashlib
import json
import logging
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
from deploy.local.kafka.cluster import Installation, java_environment, server_properties
from deploy.local.kafka.listeners import Listeners
from deploy.local.kafka.training import exercise
from deploy.local.state import require_disk

VERSION: Final = "4.4.0"

_LOCK_FILE: Final = Path(__file__).parents[1] / f"kafka-{VERSION}.lock.json"

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
    configuration.write_text(server_properties(scratch / "format", Listeners(1, 2, 3, "unused", "open")))
    command = kafka.java(main=("kafka.tools.StorageTool", "format", "-t", "cartwright-local-stack", "-c", str(configuration)))
    run = subprocess.run(command, env=java_environment(), capture_output=True, text=True, check=False)
    if run.returncode:
        raise StackError(f"Kafka's log directory cannot be formatted: {(run.stderr or run.stdout).strip()[-600:]}")
    shutil.rmtree(kafka.format, ignore_errors=True)
    (scratch / "format").rename(kafka.format)


def _train(kafka: Installation, scratch: Path) -> None:
    """Run a broker through its daily work once, while Java records what it loads."""
    draft = scratch / "kafka.aot"
    exercise(kafka, scratch / "training", f"-XX:AOTCacheOutput={draft}")
    # Without the cache everything works, only slower: no reason to fail.
    if draft.exists():
        draft.replace(kafka.folder / "kafka.aot")


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
