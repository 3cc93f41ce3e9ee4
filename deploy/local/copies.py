"""How many processes a service has of each kind, and what they are called: `checkout.worker`, `checkout.worker.2` and on.

In a cell it has one worker, `checkout.worker@east`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from deploy.local.cells import workers
from deploy.local.errors import StackError
from libs.common.cells import MAIN
from services import SERVICES

Copies: TypeAlias = Mapping[str, int]
"""By kind of process (`checkout.worker`); there is one of each that is not named."""

KINDS: Final = ("api", "worker")
MOST: Final = 24
"""As many as a topic has partitions in production: a worker more would have nothing to do."""


def asked(kind: Literal["api", "worker"], given: Iterable[str]) -> dict[str, int]:
    """Read `checkout=3`, once for each service. Raises StackError on what is no such thing."""
    copies: dict[str, int] = {}
    for each in given:
        service, _, count = each.partition("=")
        if service not in SERVICES or not count.isdecimal() or not 1 <= int(count) <= MOST:
            raise StackError(f"{each!r} is no SERVICE=COUNT, such as checkout=3: a service has 1 to {MOST} of each")
        copies[f"{service}.{kind}"] = int(count)
    return copies


def processes(services: Sequence[str], copies: Copies, cells: Iterable[str] = ()) -> Iterator[str]:
    """Every process by name, those of a kind one after the other, and those of cells in the end."""
    for service in services:
        for kind in KINDS:
            yield from named(service, kind, copies)
    yield from workers(services, cells)


def named(service: str, kind: str, copies: Copies) -> list[str]:
    """A service's processes of this kind."""
    first = f"{service}.{kind}"
    return [first, *(f"{first}.{number}" for number in range(2, copies.get(first, 1) + 1))]


def parsed(process: str) -> tuple[str, str, str]:
    """Of which service a process is, of which kind, and in which cell."""
    name, _, cell = process.partition("@")
    service, kind, *_ = name.split(".")
    return service, kind, cell or MAIN


def operator_port(process: str) -> str:
    """Which port answers operators of a process: a worker's only one, or the one beside an API's."""
    service, kind, *number = process.split(".")
    return ".".join([service, "ops", *number]) if kind == "api" else process


def ports_of(processes: Iterable[str]) -> list[str]:
    """Every port that these processes listen on."""
    return [*dict.fromkeys(port for name in processes for port in (name, operator_port(name)))]
