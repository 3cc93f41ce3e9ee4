"""Lists by page: an opaque cursor names the last item seen."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from libs.common.errors import MalformedError

K = TypeVar("K")
M = TypeVar("M", bound=BaseModel)


class Page(BaseModel, Generic[M]):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[M]
    next_cursor: str | None


def decode_cursor(cursor: str | None, first: K, parse: Callable[[str], K]) -> K:
    """The key that a cursor stands for; `first` when there is none."""
    if cursor is None:
        return first
    try:
        return parse(base64.urlsafe_b64decode(cursor.encode() + b"==").decode())
    except (binascii.Error, ValueError) as error:
        raise MalformedError("bad-cursor", "use the next_cursor you were given") from error


def text_key(key: str) -> str:
    """A key that is text. Postgres has no NUL, so neither has a cursor of ours."""
    if "\0" in key:
        raise ValueError(key)
    return key


def page(found: Sequence[M], limit: int, key: Callable[[M], str]) -> Response:
    """A page as an answer, from one item more than the page may have."""
    items = found[:limit]
    cursor = base64.urlsafe_b64encode(key(items[-1]).encode()).decode().rstrip("=") if len(found) > limit else None
    body = orjson.dumps({"items": [item.model_dump(mode="json", exclude_none=True) for item in items], "next_cursor": cursor})
    return Response(body, media_type="application/json")
