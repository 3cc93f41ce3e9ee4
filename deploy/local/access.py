"""Who may do what at the broker, from `deploy/topics.yaml`: the same rights on the embedded broker and on a real cluster."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from deploy.local.errors import StackError
from deploy.local.topics import TOPICS_FILE, declared_topics

ANONYMOUS: Final = "ANONYMOUS"
"""What Kafka calls who comes without credentials."""

_KEYS: Final = frozenset({"writes", "reads", "groups", "transactions", "watches"})


class Resource(IntEnum):
    """What a right is about, as Kafka's protocol numbers it."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5


class Pattern(IntEnum):
    """Whether a resource's name is the whole of it, or how it begins."""

    LITERAL = 3
    PREFIXED = 4


class Operation(IntEnum):
    """What may be done. Who may read or write may describe as well."""

    READ = 3
    WRITE = 4
    DESCRIBE = 8


class Permission(IntEnum):
    """A denial is stronger than any right."""

    DENY = 2
    ALLOW = 3


class Acl(NamedTuple):
    """One right as the broker keeps it. The numbers may be others than ours when somebody else granted it."""

    principal: str
    permission: int
    operation: int
    resource: int
    pattern: int
    name: str
    host: str = "*"

    def __str__(self) -> str:
        """Say it as `kafka-acls.sh --add` would be told."""
        verb = "deny" if self.permission == Permission.DENY else "allow"
        return (
            f"--{verb}-principal {self.principal} --operation {_words(Operation, self.operation)} "
            f"--{_words(Resource, self.resource)} '{self.name}' --resource-pattern-type {_words(Pattern, self.pattern)}"
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """One line of the matrix."""

    name: str
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    transactions: tuple[str, ...] = ()
    watches: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """Its name in the broker's words."""
        return f"User:{self.name}"

    def acls(self, prefix: str = "") -> Iterator[Acl]:
        """All its rights, on a deployment whose names begin with the prefix."""
        for topic in self.writes:
            yield self._may(Operation.WRITE, Resource.TOPIC, prefix + topic)
        for topic in self.reads:
            yield self._may(Operation.READ, Resource.TOPIC, prefix + topic)
        for operation, groups in ((Operation.READ, self.groups), (Operation.DESCRIBE, self.watches)):
            for group in groups:
                yield self._may(operation, Resource.GROUP, prefix + group)
                yield self._may(operation, Resource.GROUP, f"{prefix}{group}.", Pattern.PREFIXED)
        for begin in self.transactions:
            if begin == "*":  # everything, spelled as Kafka spells it
                yield self._may(Operation.WRITE, Resource.TRANSACTIONAL_ID, begin)
            else:
                yield self._may(Operation.WRITE, Resource.TRANSACTIONAL_ID, prefix + begin, Pattern.PREFIXED)

    def _may(self, operation: Operation, resource: Resource, name: str, pattern: Pattern = Pattern.LITERAL) -> Acl:
        return Acl(self.user, Permission.ALLOW, operation, resource, pattern, name)


@dataclass(frozen=True, slots=True)
class Access:
    """The whole matrix."""

    principals: dict[str, Principal] = field(default_factory=dict)
    anonymous: Principal = Principal(ANONYMOUS)

    def acls(self, prefix: str = "", *, anonymous: bool = False) -> set[Acl]:
        """Every right that is granted; those of the anonymous only where they are let in."""
        granted = {acl for principal in self.principals.values() for acl in principal.acls(prefix)}
        if anonymous:
            granted |= {*self.anonymous.acls(prefix), *self._kept_from_the_anonymous(prefix)}
        return granted

    def users(self) -> set[str]:
        """Everybody whose rights this decides."""
        return {each.user for each in (*self.principals.values(), self.anonymous)}

    def writer_of(self, topic: str) -> Principal | None:
        """The system outside that publishes to a topic, or None: then it is one of our own."""
        return next((each for each in self.principals.values() if topic in each.writes and not each.groups), None)

    def _kept_from_the_anonymous(self, prefix: str) -> Iterator[Acl]:
        """Another's transactional ids: whoever uses one ends the transaction that is under way with it."""
        for principal in self.principals.values():
            for begin in principal.transactions:
                name = prefix + begin
                resource, pattern = Resource.TRANSACTIONAL_ID, Pattern.PREFIXED
                yield Acl(self.anonymous.user, Permission.DENY, Operation.WRITE, resource, pattern, name)
                yield Acl(self.anonymous.user, Permission.DENY, Operation.DESCRIBE, resource, pattern, name)


def declared_access(file: Path = TOPICS_FILE) -> Access:
    """Read the matrix. Raises StackError at what it cannot mean."""
    import yaml

    declaration = yaml.safe_load(file.read_text())
    topics = [topic.name for topic in declared_topics()]
    groups = [group for rights in declaration["principals"].values() for group in rights.get("groups", ())]
    principals = {name: _principal(name, rights, topics, groups) for name, rights in declaration["principals"].items()}
    return Access(principals, _principal(ANONYMOUS, declaration["anonymous"], topics, groups))


def _principal(name: str, rights: dict[str, Any], topics: list[str], groups: list[str]) -> Principal:
    all_of = {"watches": groups}
    named = {key: tuple(all_of.get(key, topics) if value == "all" else value) for key, value in rights.items()}
    if unknown := sorted({*named.keys() - _KEYS, *_unknown(named, topics)}):
        raise StackError(f"topics.yaml gives {name} what does not exist: {', '.join(unknown)}")
    return Principal(name, **named)


def _unknown(named: dict[str, tuple[str, ...]], topics: Iterable[str]) -> set[str]:
    return {*named.get("writes", ()), *named.get("reads", ())} - {*topics}


def _words(kind: type[IntEnum], number: int) -> str:
    known = {int(each): each.name.lower().replace("_", "-") for each in kind}
    return known.get(number, str(number))
