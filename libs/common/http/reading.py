"""What a request says: its headers and its body, read from their bytes once and strictly."""

import re
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic_core import PydanticUndefined
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from libs.common.clock import new_id
from libs.common.errors import MalformedError, RejectedError
from libs.common.sensitive import is_sensitive

MAX_BODY_BYTES = 1_000_000
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
NOTHING: Any = PydanticUndefined
"""The body of a request that has none; `null` is a body."""

Headers = Mapping[bytes, bytes]


def headers_of(scope: Scope) -> Headers:
    """Each header by its name, the first of several. Starlette's table would decode all of them anew for each look."""
    return dict(reversed(scope["headers"]))


def header(headers: Headers, name: bytes) -> str | None:
    """One header as text."""
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def request_id_of(headers: Headers) -> str:
    """The caller's `X-Request-Id` if it is usable, else a new one."""
    given = header(headers, b"x-request-id")
    return given if given and REQUEST_ID.fullmatch(given) and not is_sensitive(given) else str(new_id())


def idempotency_key(headers: Headers, *, demanded: bool) -> str | None:
    """The key without its quotes: `"a"` and `a` are the same key."""
    given = header(headers, b"idempotency-key")
    if given is None:
        if demanded:
            raise MalformedError("idempotency-key-missing", "this needs an Idempotency-Key header, new for each new intent")
        return None
    key = given.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise MalformedError("bad-idempotency-key", "an Idempotency-Key is 1 to 255 visible ASCII characters")
    if is_sensitive(key):
        raise MalformedError("bad-idempotency-key", "an Idempotency-Key is kept, so it holds no card number and no secret")
    return key


def preferences(headers: Headers) -> Mapping[str, str]:
    """`Prefer` (RFC 7240) as a table; what nobody here knows is ignored."""
    found: dict[str, str] = {}
    given = header(headers, b"prefer")
    for part in given.split(",") if given else ():
        name, _, value = part.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


async def read_json(headers: Headers, receive: Receive) -> Any:
    """The body, or NOTHING."""
    declared = header(headers, b"content-length") or "0"
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    body = await _body(receive)
    if not body:
        return NOTHING
    if (header(headers, b"content-type") or "").partition(";")[0].strip().lower() != "application/json":
        raise _MediaTypeError("unsupported-media-type", "send application/json")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedError("not-json", f"the body is not JSON: {error}") from error


async def _body(receive: Receive) -> bytearray:
    """Everything sent, of which no more than a body may have is ever held."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return body


class _TooLargeError(RejectedError):
    status = 413


class _MediaTypeError(RejectedError):
    status = 415


def _too_large() -> _TooLargeError:
    return _TooLargeError("body-too-large", f"a body may have {MAX_BODY_BYTES} bytes")
