"""What a caller may see: the object that a path names, or a page of a list.

Whose an aggregate is, its class says (`OWNER`). What is not the caller's to see is not there, word for word.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, TypeVar
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel

from libs.common.database import Connection, Rows
from libs.common.decision import Aggregate, absent
from libs.common.http.paging import Paging
from libs.common.http.routes import Call

A = TypeVar("A", bound=Aggregate)


class Sight(Generic[A]):
    """How the object that a path names is shown; for guards, which demand it, and for endpoints, which read it."""

    def __init__(self, rows: Rows[A], parameter: str, *, as_its: "tuple[Sight[Any], str] | None" = None) -> None:
        """`as_its`: it is for whoever sees another object, whose key is an attribute of this one."""
        if as_its is None and not hasattr(rows.kind, "OWNER"):
            message = f"{rows.kind.__name__} does not say whose it is: declare its OWNER"
            raise TypeError(message)
        [self._key_type] = rows.types([rows.kind.KEY])
        self._rows = rows
        self._parameter = parameter
        self._as_its = as_its

    @property
    def is_by_owner(self) -> bool:
        """Whether a shopper sees only what is theirs of these, and not what is any shopper's."""
        return self._as_its[0].is_by_owner if self._as_its else self._rows.kind.OWNER is not None

    async def __call__(self, call: Call) -> A:
        """The object of the path. Raises NotFoundError."""
        return await self.of(call, self._key_type(call.request.path_params[self._parameter]))

    async def of(self, call: Call, key: Any) -> A:
        """The object with this key. Raises NotFoundError."""
        async with call.transaction() as connection:
            return await self.within(connection, call, key, ends=self._as_its is None)

    async def within(self, connection: Connection, call: Call, key: Any, *, ends: bool = False) -> A:
        """The same, in a transaction that reads more, unless it `ends` with it."""
        seen = await self.seen(connection, call, key, ends=ends)
        if seen is None:
            raise absent(self._rows.kind)
        return seen

    async def seen(self, connection: Connection, call: Call, key: Any, *, ends: bool = False) -> A | None:
        """The same, or None."""
        found = await self._rows.load(connection, [(call.tenant_id, key)], lock=False, ends=ends)
        if not found or found[0].is_gone:
            return None
        if self._as_its is None:
            is_seen = call.viewer.sees(found[0])
        else:
            other, attribute = self._as_its
            is_seen = call.viewer.sees_all or await other.seen(connection, call, getattr(found[0], attribute)) is not None
        return found[0] if is_seen else None


async def of_the_tenant(_call: Call) -> None:
    """What the path names is the tenant's own, and need not be there: whoever has the permission may."""


async def made_by_caller(_call: Call) -> None:
    """The path names what this call makes; should it be there and another's, the decision refuses."""


TOLD_TO_PAYERS = frozenset({"authentication_required", "insufficient_funds", "processing_error", "card_not_supported"})
"""What payers can do something about, in the provider's words (docs.stripe.com/declines/codes). Anything else that an issuer
says, of a card that is stolen or a number that is wrong, helps those who try cards that are not theirs."""


def code_for(call: Call, code: str | None, instead: str) -> str | None:
    """Why money did not move, as this caller may know it: staff exactly, a shopper only what is of use to them.

    Our own codes, which have hyphens, say nothing of a card.
    """
    if code is None or not call.principal.is_shopper or code in TOLD_TO_PAYERS or "-" in code:
        return code
    return instead


async def listed(
    call: Call,
    rows: Rows[A],
    model: Callable[[A], BaseModel],
    limit: int,
    cursor: str | None,
    *,
    tenant_id: UUID | None = None,
    by: Sequence[str] = (),
    newest_first: bool = False,
    where: Mapping[str, Any] = MappingProxyType({}),
) -> Response:
    """One page of what the caller may see of a kind, as `Rows.page` finds it, in the caller's tenant unless another is said."""
    by = by or (rows.kind.KEY,)
    asked = Paging(limit, cursor, *rows.types(by))
    where = {**where, **call.viewer.own(rows.kind)}
    tenant_id = call.tenant_id if tenant_id is None else tenant_id
    async with call.transaction(tenant_id) as connection:
        found = await rows.judged_page(
            connection, tenant_id, after=asked.after, limit=asked.most, by=by, newest_first=newest_first, where=where
        )
    return asked.reply(found, model, lambda each: [getattr(each, name) for name in by])
