"""Lists by page: an opaque cursor names the last item seen."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import orjson
from fastapi import Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from libs.common.clock import rfc3339
from libs.common.decision import Unreadable
from libs.common.errors import MalformedError
from libs.common.http.openapi_schemas import TOLD_AS_NULL

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

Limit = Annotated[int, Query(ge=1, le=200)]
"""The most items of a page."""


class Page(BaseModel, Generic[M]):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[M]
    next_cursor: Annotated[str | None, Field(json_schema_extra={TOLD_AS_NULL: True})]


def _text(part: str) -> str:
    """Postgres has no NUL, so neither has a cursor of ours."""
    if "\0" in part:
        raise ValueError(part)
    return part


def _number(part: str) -> int:
    number = int(part)
    if not 0 < number < 2**63:
        raise ValueError(part)
    return number


def _moment(part: str) -> datetime:
    moment = datetime.fromisoformat(part)
    if moment.tzinfo is None:
        raise ValueError(part)
    return moment


PARTS: Mapping[type, Callable[[str], Any]] = {UUID: UUID, str: _text, int: _number, datetime: _moment}


class Paging:
    """A page as it is asked for. Of a bookmark with several parts, only the last may have a space in it."""

    def __init__(self, limit: int, cursor: str | None, *types: type) -> None:
        """`types` are those of the bookmark, which says where a page ends. Raises MalformedError."""
        self.after = None if cursor is None else _read(cursor, types)
        """The bookmark of the page before."""
        self.most = limit + 1
        """How many items to find: one more than the page may have, by which one knows that there are more."""

    def reply(
        self, found: Sequence[T | Unreadable], model: Callable[[T], BaseModel], bookmark: Callable[[T], Sequence[Any]]
    ) -> Response:
        """The page as an answer, without what nobody can read. Such a row's bookmark are the columns that pages go by."""
        shown = found[: self.most - 1]
        models = [model(each) for each in shown if not isinstance(each, Unreadable)]
        if len(found) < self.most:
            return page(models)
        last = shown[-1]
        return page(models, _written(last.bookmark if isinstance(last, Unreadable) else bookmark(last)))


def page(items: Sequence[BaseModel], next_cursor: str | None = None) -> Response:
    """A page as an answer."""
    told = b",".join(item.model_dump_json(exclude_none=True).encode() for item in items)
    return Response(b'{"items":[%b],"next_cursor":%b}' % (told, orjson.dumps(next_cursor)), media_type="application/json")


def _read(cursor: str, types: Sequence[type]) -> Sequence[Any]:
    try:
        parts = base64.urlsafe_b64decode(cursor.encode() + b"==").decode().split(" ", len(types) - 1)
        return [PARTS[each](part) for each, part in zip(types, parts, strict=True)]
    except (binascii.Error, ValueError) as error:
        raise MalformedError("bad-cursor", "use the next_cursor you were given") from error


def _written(bookmark: Sequence[Any]) -> str:
    text = " ".join(rfc3339(part) if isinstance(part, datetime) else str(part) for part in bookmark)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
