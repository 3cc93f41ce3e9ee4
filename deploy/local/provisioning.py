"""Makes what a deployment stands on, on servers that are there: databases and roles, topics, users and rights at the broker."""

import json
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from deploy.local import databases
from deploy.local.access import declared_access
from deploy.local.cells import CELLED
from deploy.local.databases import ROLES, Role, cell_prefix, database_url, role_password
from deploy.local.environment import variable
from deploy.local.errors import StackError
from deploy.local.kafka.client import client_options
from deploy.local.kafka.wall import provide_rights, provide_users
from deploy.local.topics import Topic, declared_topics, provide_topics
from libs.common.cells import MAIN
from services import SERVICES

Part = Literal["databases", "topics", "users", "rights"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

_SECRETS: Final[dict[Role, tuple[str, str]]] = {
    "app": ("", "database-url"),
    "relay": ("", "relay-database-url"),
    "owner": ("-owner", "owner-database-url"),
}
"""Where each role's address lies: what the chart calls the Secret, after the service's name, and the key in it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be there."""

    parts: Collection[Part] = PARTS
    partitions: int | None = None
    """Of every topic that is declared with more than one; as declared for production unless set."""
    replication: int | None = None
    min_in_sync: int | None = None
    secrets: Path | None = None
    """Where the roles' addresses and the users' passwords are written."""
    cells: Collection[str] = ()
    """Besides the main one."""

    def topics(self) -> list[Topic]:
        """The declared ones, as they are wanted here."""
        return [self._wanted(topic) for topic in declared_topics(where="production")]

    def _wanted(self, topic: Topic) -> Topic:
        settings = dict(topic.settings)
        if self.min_in_sync is not None:
            settings["min.insync.replicas"] = str(self.min_in_sync)
        partitions = topic.partitions if topic.partitions == 1 else self.partitions or topic.partitions
        return replace(topic, partitions=partitions, replication=self.replication or topic.replication, settings=settings)


async def provision(wanted: Wanted, *, changes: bool) -> AsyncIterator[str]:
    """Yield what is lacking, a line each, and see to it; unless there shall be `changes`, only yield.

    A line begins with `+` (made), `~` (changed), `-` (taken away) or `!` (not done: somebody else has to).
    """
    if "databases" in wanted.parts:
        async for line in _of_databases(wanted, changes=changes):
            yield line
    if {"topics", "users", "rights"} & {*wanted.parts}:
        async for line in _of_the_broker(wanted, changes=changes):
            yield line


async def _of_databases(wanted: Wanted, *, changes: bool) -> AsyncIterator[str]:
    admin_url = _required("POSTGRES_ADMIN_URL", "databases")
    for service, cell in _wanted_databases(wanted.cells):
        for step in await (databases.provision if changes else databases.plan)(admin_url, service, cell_prefix(cell)):
            yield f"+ {step}" if step.is_ours else f"! {step} (a superuser has to)"
    for line in _kept(_addresses(wanted.secrets, admin_url, wanted.cells), changes=changes):
        yield line


def _wanted_databases(cells: Iterable[str]) -> list[tuple[str, str]]:
    """Each service with each cell that it has a database in."""
    return [(service, MAIN) for service in SERVICES] + [(service, cell) for cell in cells for service in CELLED]


async def _of_the_broker(wanted: Wanted, *, changes: bool) -> AsyncIterator[str]:
    broker: dict[str, Any] = {"bootstrap_servers": _required("KAFKA_BOOTSTRAP_SERVERS", "topics and rights"), **client_options()}
    prefix = variable("TOPIC_PREFIX") or ""
    if "topics" in wanted.parts:
        for difference in await provide_topics(topics=wanted.topics(), prefix=prefix, changes=changes, **broker):
            for line in difference.lines():
                yield line
    if "users" in wanted.parts and _asks_for_passwords(broker, asked_for=len(wanted.parts) < len(PARTS)):
        access = declared_access()
        users = {name: role_password(variable("POSTGRES_ADMIN_URL") or "", f"kafka.{name}") for name in access.principals}
        for name in await provide_users(broker, users, changes=changes):
            yield f"+ user {name} ({broker['sasl_mechanism']})"
        for line in _kept(_passwords(wanted.secrets, users, wanted.cells), changes=changes):
            yield line
    if "rights" in wanted.parts:
        for line in (await provide_rights(broker, declared_access(), prefix, changes=changes)).lines():
            yield line


def _passwords(folder: Path | None, users: Mapping[str, str], cells: Iterable[str]) -> list[tuple[Path, str]]:
    if folder is None:
        return []
    of_cells = {_secret(service, cell): users[service] for service, cell in _wanted_databases(cells)}
    return [(folder / name / "kafka-sasl-password", password) for name, password in (dict(users) | of_cells).items()]


def _asks_for_passwords(broker: dict[str, Any], *, asked_for: bool) -> bool:
    """Whether the broker keeps the users itself: of others' it is somebody else who makes them."""
    keeps = str(broker.get("sasl_mechanism")).startswith("SCRAM-")
    if asked_for and not keeps:
        raise StackError("users are made at brokers that keep them: come by SCRAM (CARTWRIGHT_KAFKA_SASL_MECHANISM)")
    return keeps


def _kept(files: Iterable[tuple[Path, str]], *, changes: bool) -> Iterator[str]:
    """Have these files with what is to be in them, and say which were otherwise."""
    for file, content in files:
        if not file.exists() or file.read_text() != content:
            yield f"+ {file}"
            if changes:
                _write(file, content)


def _addresses(folder: Path | None, admin_url: str, cells: Collection[str]) -> list[tuple[Path, str]]:
    if folder is None:
        return []
    found = []
    for service, cell in _wanted_databases(cells):
        for role in ROLES:
            url = database_url(admin_url, service, role, cell_prefix(cell))
            found.append((folder / f"{_secret(service, cell)}{_SECRETS[role][0]}" / _SECRETS[role][1], url))
    for service in CELLED if cells else ():
        urls = {cell: database_url(admin_url, service, "app", cell_prefix(cell)) for cell in cells}
        found.append((folder / service / "cell-database-urls", json.dumps(urls)))
    return found


def _secret(service: str, cell: str) -> str:
    return service if cell == MAIN else f"{service}-{cell}"


def _write(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.touch(mode=0o600)
    file.write_text(content)


def _required(name: str, what: str) -> str:
    value = variable(name)
    if value is None:
        raise StackError(f"set CARTWRIGHT_{name}, where {what} are to be; --only names what shall be seen to")
    return value
