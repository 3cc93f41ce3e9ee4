"""What a request says: its path, its query, its headers and its body, each read from its bytes once and strictly.

No text of a request may hold U+0000 or half of a surrogate pair: no column keeps them. That is looked for here, in every
text and name wherever it stands, so no model has to think of it.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_plus, unquote_to_bytes

import orjson
from pydantic_core import PydanticUndefined
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from libs.common.clock import new_id
from libs.common.errors import MalformedError, RejectedError
from libs.common.json_text import NotJsonError, is_keepable, may_hold_zero, pointer_part, read_leniently, unkeepable
from libs.common.sensitive import is_sensitive

MAX_BODY_BYTES = 1_000_000
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
NOTHING: Any = PydanticUndefined
"""The body of a request that has none; `null` is a body."""

SLASH = "\ud800"
"""Stands for a slash that was percent-encoded, and so is part of a segment. No bytes decode to it."""
UNKEEPABLE = "U+0000 and half of a surrogate pair cannot be kept"

Headers = Mapping[bytes, bytes]


def path_of(scope: Scope) -> str:
    """The path with its segments decoded each by itself, so that `%2F` never ends one. What is no text is no argument either."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None or b"%" not in raw:
        path: str = scope["path"]
        return path
    segments = [unquote_to_bytes(segment).decode(errors="surrogateescape") for segment in raw.split(b"/")]
    return "/".join(segment.replace("/", SLASH) for segment in segments)


def instance_of(scope: Scope) -> str:
    """The path for people to read, in a problem document: what is no text in it is shown as that."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode(errors="replace")
    return unquote_to_bytes(raw).decode(errors="replace")


def unkeepable_query(query: bytes) -> Iterator[str]:
    """The JSON pointers of the query's texts, names among them, that cannot be kept."""
    if b"%" not in query and query.isascii():
        return
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        try:
            texts = [unquote_plus(each.decode(), errors="strict") for each in (name, value)]
        except UnicodeDecodeError:
            yield f"/{pointer_part(unquote_plus(name.decode('latin-1')))}"
            continue
        if not all(is_keepable(text) for text in texts):
            yield f"/{pointer_part(texts[0])}"


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
    """The key without its quotes: `"a"` and `a` are the same key. One that may be a card or a secret is kept as its hash."""
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
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}" if is_sensitive(key) else key


def preferences(headers: Headers) -> Mapping[str, str]:
    """`Prefer` (RFC 7240) as a table; what nobody here knows is ignored."""
    found: dict[str, str] = {}
    given = header(headers, b"prefer")
    for part in given.split(",") if given else ():
        name, _, value = part.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


async def read_json(headers: Headers, receive: Receive) -> tuple[Any, list[str]]:
    """The body, or NOTHING; and the pointers of its texts that cannot be kept, for which its caller will be refused."""
    declared = header(headers, b"content-length") or "0"
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    body = await _body(receive)
    if not body:
        return NOTHING, []
    if (header(headers, b"content-type") or "").partition(";")[0].strip().lower() != "application/json":
        raise _MediaTypeError("unsupported-media-type", "send application/json")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _with_halves(body, error)
    return value, [*unkeepable(value)] if may_hold_zero(body) else []


def _with_halves(body: bytearray, error: orjson.JSONDecodeError) -> tuple[Any, list[str]]:
    """JSON all the same, if it is only that one of its texts has half of a surrogate pair. Raises MalformedError."""
    try:
        value = read_leniently(body)
    except NotJsonError:
        value = None
    pointers = [*unkeepable(value)]
    if not pointers:
        raise MalformedError("not-json", f"the body is not JSON: {error}") from error
    return value, pointers


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
