"""The audit trail computed anew, entry by entry: from the rows alone, and not by the function that wrote them (ADR 0032)."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

BEGINNING: Final = bytes(32)
"""What the first entry follows."""

HEADS: Final = "SELECT tenant_id, number, digest FROM audit_head WHERE $1::uuid IS NULL OR tenant_id = $1"
ENTRIES: Final = "SELECT * FROM audit_entry WHERE $1::uuid IS NULL OR tenant_id = $1 ORDER BY tenant_id, number"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS: Final = ("actor", "client_id", "session_id", "address", "request_id")
_THING: Final = ("action", "object_kind", "object_id", "reason")


def canonical(entry: Mapping[str, Any]) -> bytes:
    """The bytes that an entry's digest is of.

    Tenant (16), number (8) and the time in microseconds since 1970 (8); then each text with its length (4) before it, and the
    digests of the states as hexadecimal text, -1 for none; last the digest of the entry before (32). Numbers are big-endian.
    """
    microseconds = (entry["at"] - _EPOCH) // timedelta(microseconds=1)
    texts = [
        *(entry[name] for name in _WORDS),
        "true" if entry["by_platform"] else "false",
        *(entry[name] for name in _THING),
        *(None if entry[name] is None else entry[name].hex() for name in ("state_before", "state_after")),
    ]
    head: bytes = entry["tenant_id"].bytes + struct.pack(">qq", entry["number"], microseconds)
    return head + b"".join(map(_measured, texts)) + bytes(entry["previous"])


def _measured(text: str | None) -> bytes:
    if text is None:
        return struct.pack(">i", -1)
    written = text.encode()
    return struct.pack(">i", len(written)) + written


@dataclass(slots=True)
class Chain:
    """One tenant's trail in one service, as far as it was read; `broken` is the first entry that is wrong, and how."""

    service: str
    tenant_id: UUID
    known: Mapping[int, str] = field(default_factory=dict)
    """Digests, in hexadecimal, that somebody has kept elsewhere, by the number of their entry."""
    number: int = 0
    digest: bytes = BEGINNING
    broken: tuple[int, str] | None = None

    def take(self, entry: Mapping[str, Any]) -> None:
        """Hold the next entry against the one before, and against itself."""
        if self.broken is None:
            wrong = self._wrong(entry)
            if wrong is not None:
                self.broken = wrong
                return
            self.number, self.digest = entry["number"], bytes(entry["digest"])

    def _wrong(self, entry: Mapping[str, Any]) -> tuple[int, str] | None:
        number, due = entry["number"], self.number + 1
        if number != due:
            return due, "is missing"
        if hashlib.sha256(canonical(entry)).digest() != entry["digest"]:
            return number, "does not say what it said when it was written"
        if entry["previous"] != self.digest:
            return number, "does not follow the one before: one of the two was written anew"
        if self.known.get(number, entry["digest"].hex()) != entry["digest"].hex():
            return number, "is not the one that was kept elsewhere: the chain was written anew"
        return None

    def end(self, head: Mapping[str, Any] | None) -> None:
        """Hold the whole against its head, which says where it ends."""
        if self.broken is not None:
            return
        last = max([0 if head is None else head["number"], *self.known])
        if last > self.number:
            self.broken = self.number + 1, "is missing"
        elif head is None or head["number"] < self.number:
            self.broken = (0 if head is None else head["number"]) + 1, "was added past the head of its chain"
        elif head["digest"] != self.digest:
            self.broken = self.number, "is not the one that the head of its chain names"


async def read(
    connection: asyncpg.Connection, service: str, tenant_id: UUID | None, kept: Mapping[UUID, Mapping[int, str]]
) -> list[Chain]:
    """Every chain of a service, or one tenant's, as they are at one moment, in the order of the tenants."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        heads = {row["tenant_id"]: row for row in await connection.fetch(HEADS, tenant_id)}
        expected = {*heads, *(each for each in kept if tenant_id in (None, each))}
        chains = {each: Chain(service, each, kept.get(each, {})) for each in expected}
        async for entry in connection.cursor(ENTRIES, tenant_id, prefetch=1_000):
            whose = entry["tenant_id"]
            chains.setdefault(whose, Chain(service, whose)).take(entry)
    for whose, chain in chains.items():
        chain.end(heads.get(whose))
    return [chains[whose] for whose in sorted(chains)]
