"""Stripe's form encoding: bracketed names into nested values, and typed reads that refuse as Stripe refuses."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import TypeAlias
from urllib.parse import unquote_plus

import orjson

from deploy.local.fake_stripe.errors import StripeError, invalid

Node: TypeAlias = "str | dict[str, Node]"
Pairs = list[tuple[str, str]]

_NAME = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_MAX_DEPTH = 6
_METADATA_LIMITS = (50, 40, 500)
"""Entries, characters of a key, characters of a value."""


def pairs_of(raw: bytes | str) -> Pairs:
    """Decode a body or a query string into its pairs, in the order they were sent."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    # The SDKs escape the brackets of every name; undone at one blow, most names and values have nothing left to unescape.
    pieces = text.replace("%5B", "[").replace("%5D", "]").split("&")
    return [(_unescaped(name), _unescaped(value)) for name, _, value in (piece.partition("=") for piece in pieces if piece)]


def _unescaped(text: str) -> str:
    return unquote_plus(text) if "%" in text or "+" in text else text


def fingerprint(path: str, pairs: Pairs) -> str:
    """Digest what a request asks, whatever the order of its parameters."""
    return blake2b(orjson.dumps([path, sorted(pairs)]), digest_size=16).hexdigest()


class Form:
    """The parameters of one request."""

    def __init__(self, fields: Mapping[str, Node], *, prefix: str = "") -> None:
        self._fields = fields
        self._prefix = prefix

    @classmethod
    def parse(cls, pairs: Pairs) -> Form:
        """Nest `a[b]=c`, `a[]=c` and `a[0]=c`; the last of two equal names wins."""
        fields: dict[str, Node] = {}
        for name, value in pairs:
            if "[" in name:
                _place(fields, name, value)
            else:
                fields[name] = value
        return cls(fields)

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def only(self, allowed: Collection[str]) -> None:
        """Refuse a parameter outside `allowed`: this fake ignores nothing in silence."""
        for name in self._fields:
            if name not in allowed:
                param = self._param(name)
                raise invalid(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)

    def text(self, name: str) -> str | None:
        """Return the value; absent and empty are both None, as an empty value unsets in Stripe."""
        value = self._fields.get(name)
        if isinstance(value, dict):
            param = self._param(name)
            raise invalid(f"Invalid string: {param} is an object", code="parameter_invalid_string", param=param)
        return value or None

    def required(self, name: str) -> str:
        """Return the value or refuse its absence."""
        value = self.text(name)
        if value is None:
            param = self._param(name)
            raise invalid(f"Missing required param: {param}.", code="parameter_missing", param=param)
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str | None:
        """Return the value if it is one of `choices`."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise invalid(f"Invalid {self._param(name)}: must be one of {', '.join(choices)}", param=self._param(name))
        return value

    def integer(self, name: str, *, low: int | None = None, high: int | None = None) -> int | None:
        """Return a whole number within its bounds."""
        value = self.text(name)
        if value is None:
            return None
        param = self._param(name)
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise invalid(f"Invalid integer: {value}", code="parameter_invalid_integer", param=param)
        number = int(value)
        if low is not None and number < low:
            message = f"This value must be greater than or equal to {low}."
            raise invalid(message, code="parameter_invalid_integer", param=param)
        if high is not None and number > high:
            message = f"This value must be less than or equal to {high} (it currently is '{number}')."
            raise invalid(message, code="parameter_invalid_integer", param=param)
        return number

    def flag(self, name: str) -> bool:
        """Return a boolean; absent is false."""
        value = self.text(name)
        if value not in {None, "true", "false"}:
            raise invalid(f"Invalid boolean: {value}", param=self._param(name))
        return value == "true"

    def strings(self, name: str) -> list[str]:
        """Return a list in any of the spellings `a[]=`, `a[0]=`."""
        value = self._fields.get(name)
        if not value:
            return []
        if isinstance(value, str):
            raise invalid("Invalid array", param=self._param(name))
        return [entry for entry in value.values() if isinstance(entry, str)]

    def nested(self, name: str) -> Form:
        """Return the object under `name`, empty when it is absent."""
        value = self._fields.get(name)
        if isinstance(value, str) and value:
            raise invalid("Invalid object", param=self._param(name))
        return Form(value if isinstance(value, dict) else {}, prefix=self._param(name))

    def metadata(self) -> dict[str, str]:
        """Return `metadata[...]` within Stripe's limits; an empty value unsets and is left out."""
        entries = {key: self.nested("metadata").text(key) for key in self.nested("metadata").names()}
        count, key_length, value_length = _METADATA_LIMITS
        if len(entries) > count:
            raise invalid(f"You can set at most {count} metadata keys.", param="metadata")
        for key, value in entries.items():
            if len(key) > key_length or len(value or "") > value_length:
                message = f"Metadata keys can be up to {key_length} characters long and values up to {value_length}."
                raise invalid(message, param=f"metadata[{key}]")
        return {key: value for key, value in entries.items() if value is not None}

    def metadata_over(self, before: dict[str, str]) -> dict[str, str]:
        """Return an object's metadata after an update: an empty value removes its entry, and an empty whole all of them."""
        if self._fields.get("metadata") == "":
            return {}
        entries, given = self.metadata(), self.nested("metadata").names()
        return {key: value for key, value in before.items() if key not in given} | entries

    def is_plain(self, name: str) -> bool:
        """Tell whether the value is a text rather than an object."""
        return isinstance(self._fields.get(name), str)

    def names(self) -> list[str]:
        """Return the names at this level."""
        return list(self._fields)

    def _param(self, name: str) -> str:
        return f"{self._prefix}[{name}]" if self._prefix else name


def _place(fields: dict[str, Node], name: str, value: str) -> None:
    match = _NAME.match(name)
    if match is None:
        raise invalid(f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
    inner = match[2][1:-1].split("][")
    if len(inner) > _MAX_DEPTH:
        raise StripeError(400, "invalid_request_error", "Parameters are nested too deeply.", param=match[1])
    level = fields
    for step in (match[1], *inner[:-1]):
        below = level.setdefault(step, {})
        if isinstance(below, str):
            raise invalid("Invalid object", param=match[1])
        level = below
    level[inner[-1] or str(len(level))] = value
