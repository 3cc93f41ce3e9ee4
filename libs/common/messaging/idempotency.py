"""Idempotency keys: claimed, and answered for, in the very transaction that does what was asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

import asyncpg
import orjson

from libs.common.database import ConcurrencyError, Connection, Write
from libs.common.errors import ConflictError, RejectedError

R = TypeVar("R")

CLAIM = """INSERT INTO idempotency_key (tenant_id, subject, operation, key, fingerprint) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING true"""
RECALL = """SELECT fingerprint, status, headers, body FROM idempotency_key
WHERE tenant_id = $1 AND subject = $2 AND operation = $3 AND key = $4"""
REMEMBER = """UPDATE idempotency_key SET status = $5, headers = $6, body = $7
WHERE tenant_id = $1 AND subject = $2 AND operation = $3 AND key = $4"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an idempotent request was answered with. A thing that lives on is remembered by its id, as `resource`."""

    status: int
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replayed:
    """The key had been used for the same request before: this was the answer."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Claim(Generic[R]):
    """A request's idempotency key: whose it is, what it was for, and how its answer is remembered."""

    tenant_id: UUID
    subject: str
    operation: str
    key: str
    fingerprint: bytes
    remember: Callable[[R], Answer]

    async def recalled(self, connection: Connection) -> Answer | None:
        """Insert the key, waiting for a twin's short transaction if there is one; its answer if it had been used."""
        scope = (self.tenant_id, self.subject, self.operation, self.key)
        try:
            if await connection.fetchval(CLAIM, *scope, self.fingerprint):
                return None
        except asyncpg.exceptions.LockNotAvailableError as error:
            raise ConflictError("request-in-flight", "the same request is still being carried out", retry_after=1) from error
        row = await connection.fetchrow(RECALL, *scope)
        if row is None:
            message = "an idempotency key expired while it was being claimed"
            raise ConcurrencyError(message)
        if row["fingerprint"] != self.fingerprint:
            detail = "this Idempotency-Key was used for another request; send a new key with a new request"
            raise RejectedError("idempotency-key-reused", detail)
        return Answer(row["status"], row["body"], orjson.loads(row["headers"] or "{}"))

    def remembered(self, result: R) -> Write:
        """What keeps the answer that this result is told in."""
        answer = self.remember(result)
        headers = orjson.dumps(dict(answer.headers)).decode()
        scope = (self.tenant_id, self.subject, self.operation, self.key)
        return Write(REMEMBER, [*scope, answer.status, headers, answer.body])
