"""JSON as RFC 8259 would have it exchanged: no member twice, no NaN, no half of a character, and nothing a column cannot keep."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

_NAMES: Final = re.compile(rb'"[ \t\r\n]*:')
"""Ends every member's name. A text may hold the same, so there are at least as many of these as members."""
_ZERO_ESCAPED: Final = b"\\u0000"
"""A zero can stand in JSON in no other way."""


class NotJsonError(ValueError):
    """It is no JSON that two readers would read alike."""


def read_strictly(payload: bytes | bytearray) -> Any:
    """The value. Raises NotJsonError, also for a member that is there twice: one reader would take the first, one the last."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise NotJsonError(f"not JSON: {error}") from error
    if len(_NAMES.findall(payload)) != _members(value):
        _demand_unique(payload)
    return value


def _members(value: Any) -> int:
    count, items = (len(value), value.values()) if isinstance(value, dict) else (0, value if isinstance(value, list) else ())
    for each in items:
        if type(each) is dict or type(each) is list:
            count += _members(each)
    return count


def _demand_unique(payload: bytes | bytearray) -> None:
    """Look closely: there may be a text that only looks like a name."""

    def unique(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise NotJsonError(f"a member stands there twice: {', '.join(sorted(twice))[:100]}")

    try:
        json.loads(payload, object_pairs_hook=unique)
    except RecursionError as error:
        raise NotJsonError("not JSON: too deep") from error


def read_leniently(payload: bytes | bytearray) -> Any:
    """The value of what RFC 8259's grammar allows, half characters among it. Raises NotJsonError."""

    def refuse(name: str) -> Any:
        raise NotJsonError(f"not JSON: {name}")

    try:
        return json.loads(payload.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise NotJsonError(f"not JSON: {error}") from error


def may_hold_zero(payload: bytes | bytearray) -> bool:
    """Whether there may be a U+0000 in a text of it."""
    return _ZERO_ESCAPED in payload


def is_keepable(text: str) -> bool:
    """Whether a column can keep the text, and a message carry it: no U+0000, and no half of a surrogate pair."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def keepable(text: str) -> str:
    """The text as a column can keep it: what it cannot keep is told in escapes, so that a person can read what stood there."""
    return text if is_keepable(text) else _escaped(text)


def _escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\u0000")


def unkeepable(value: Any, pointer: str = "") -> Iterator[str]:
    """The JSON pointers (RFC 6901) of all texts, names among them, that cannot be kept."""
    if isinstance(value, str):
        if not is_keepable(value):
            yield pointer
    elif isinstance(value, dict):
        for name, each in value.items():
            below = f"{pointer}/{pointer_part(name)}"
            if not is_keepable(name):
                yield below
            yield from unkeepable(each, below)
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from unkeepable(each, f"{pointer}/{place}")


def pointer_part(name: str) -> str:
    """One step of a JSON pointer, in characters that anybody can show."""
    return _escaped(name).replace("~", "~0").replace("/", "~1")
