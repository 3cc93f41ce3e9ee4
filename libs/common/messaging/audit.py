"""The audit trail: who did what to which thing, in the transaction that did it, chained so that it shows if it was bent.

The shell tells it of every change that somebody asked for, so no handler can forget to (`Handler.unaudited` says of which not,
and why). What is done past the shell, as to parked messages, is told here by name. The database chains (`schema/v10.py`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from libs.common.database import Connection, Rows
from libs.common.decision import Aggregate, Changed, Handler, Message
from libs.common.origin import Origin
from libs.common.sensitive import LEFT_OUT, kept

APPEND = "SELECT audit_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
FORGET = "SELECT audit_forget($1)"
MAX_REASON = 1_000
_MAIL = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One line of the trail. Of the states before and after, their keyed digests are kept and nothing else."""

    tenant_id: UUID
    """Whose thing it was done to: the platform's own id for what is no tenant's."""
    origin: Origin
    action: str
    kind: str
    object_id: str
    reason: str = ""
    before: bytes | None = None
    after: bytes | None = None


async def append(connection: Connection, acts: Sequence[Act]) -> None:
    """Put these at the end of their tenants' chains, in their order; the last thing that a transaction does.

    The transaction must be in the name of these tenants.
    """
    columns = [
        (
            act.tenant_id,
            *_words(act.origin),
            act.origin.by_platform,
            act.action,
            act.kind,
            act.object_id,
            _why(act),
            act.before,
            act.after,
        )
        for act in acts
    ]
    await connection.execute(APPEND, *map(list, zip(*columns, strict=True)))


async def forget(connection: Connection, tenant_id: UUID) -> None:
    """Throw away the keys of a tenant that is erased. Its trail stays whole, and tells nobody any more what its things were."""
    await connection.execute(FORGET, tenant_id)


def origin_of(message: Message[Any], handler: Handler[Any, Any]) -> Origin | None:
    """Who is named for what this message changes; None if the trail does not tell of it."""
    if handler.always_audited:
        return message.origin or Origin(actor=message.actor or message.source, request_id=message.id)
    if message.origin is None or message.origin.by_shopper or handler.unaudited is not None:
        return None
    return message.origin


def told(changed: Changed, rows: Mapping[type[Aggregate], Rows[Any]]) -> Act:
    """A change as a line of the trail."""
    after, kind = changed.after, type(changed.after)
    canonical = rows[kind].canonical
    return Act(
        tenant_id=after.tenant_id,
        origin=changed.origin,
        action=hyphened(type(changed.message.data).__name__),
        kind=hyphened(kind.__name__),
        object_id=str(after.key),
        reason=str(getattr(changed.message.data, "reason", None) or ""),
        before=None if changed.before is None else canonical(changed.before),
        after=canonical(after),
    )


@cache
def hyphened(name: str) -> str:
    """`CreateClient` as `create-client`."""
    return re.sub("(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _words(origin: Origin) -> tuple[str, ...]:
    return origin.actor, origin.client_id, origin.session_id, origin.address, origin.request_id


def _why(act: Act) -> str:
    """The reason as it was written, without what would be somebody's secret or name."""
    return _MAIL.sub(LEFT_OUT, kept(act.reason))[:MAX_REASON]
