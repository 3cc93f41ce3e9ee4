"""Cells of a local stack: each has databases of its own on the same server, and workers; APIs are told of all of them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from deploy.local.errors import StackError
from libs.common.cells import MAIN, NAME
from services import SERVICES

CELLED: Final = tuple(service for service in SERVICES if service != "identity")
"""The services that each cell has databases and workers of. Identity is one for all."""


def asked(given: Iterable[str]) -> tuple[str, ...]:
    """Read the names of cells. Raises StackError on what is none, and on the main one, which is there anyway."""
    names = tuple(dict.fromkeys(given))
    for name in names:
        if not re.fullmatch(NAME, name):
            raise StackError(f"{name!r} is no cell's name, which has up to 16 lower-case letters and digits, a letter first")
        if name == MAIN:
            raise StackError(f"the cell {MAIN} is always there: name others")
    return names


def workers(services: Sequence[str], cells: Iterable[str]) -> Iterator[str]:
    """Every worker of other cells than the main one, by name: `cart.worker@east`."""
    for cell in cells:
        yield from (f"{service}.worker@{cell}" for service in services if service in CELLED)
