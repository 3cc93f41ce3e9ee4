"""Whether an event still is what its readers and publishers know: one schema compared with another.

The rule is the strictest there is, because it works in both directions: what was ever published stays readable, and
what is published now can be read by whoever still knows the old schema. That leaves one change to an event which is
there already: a new optional field. A wider bound or one more value of an enum breaks too, for old readers refuse them.
Only a schema's words (titles, descriptions) may change freely, and what this module does not know counts as a break.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Schema = Mapping[str, Any]

_WORDS: Final = frozenset({"$schema", "$id", "$defs", "$comment", "title", "description", "examples", "deprecated"})
_STRUCTURE: Final = frozenset({"$ref", "properties", "required", "enum", "const", "items", "additionalProperties", "anyOf"})
_LOWER: Final = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_UPPER: Final = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})


@dataclass(frozen=True, slots=True)
class Break:
    """One change that a reader or a publisher would trip over, and the member it is about."""

    member: str
    what: str

    def __str__(self) -> str:
        return f"{self.member}: {self.what}" if self.member else self.what


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a schema, with the whole that its references point into."""

    schema: Schema
    whole: Schema

    def at(self, found: Schema) -> "_Part":
        """A part below this one, its reference followed."""
        while "$ref" in found:
            beside = {keyword: value for keyword, value in found.items() if keyword != "$ref"}
            found = {**self.whole["$defs"][found["$ref"].rpartition("/")[2]], **beside}
        return _Part(found, self.whole)


def breaks(before: Schema, after: Schema) -> list[Break]:
    """Every breaking change from one schema of an event to another."""
    return list(_compare(_Part(before, before), _Part(after, after), ""))


def _compare(before: _Part, after: _Part, member: str) -> Iterator[Break]:
    kinds = _kind(before), _kind(after)
    if kinds[0] != kinds[1]:
        yield Break(member, f"was {kinds[0]} and is {kinds[1]} now")
        return
    yield from _fields(before, after, member)
    yield from _values(before.schema, after.schema, member)
    yield from _keywords(before.schema, after.schema, member)
    for keyword, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if keyword in before.schema and keyword in after.schema:
            yield from _compare_below(before, after, keyword, member + mark)
        elif (keyword in before.schema) != (keyword in after.schema):
            yield Break(member, f"{keyword} {'is gone' if keyword in before.schema else 'is new'}")
    for was, now in zip(before.schema.get("anyOf", ()), after.schema.get("anyOf", ()), strict=True):
        yield from _compare(before.at(was), after.at(now), member)


def _compare_below(before: _Part, after: _Part, keyword: str, member: str) -> Iterator[Break]:
    was, now = before.schema[keyword], after.schema[keyword]
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        yield from _compare(before.at(was), after.at(now), member)
    elif was != now:
        yield Break(member, f"was {_word(was)} and is {_word(now)} now")


def _kind(part: _Part) -> str:
    """What a part is, in words: its type, or those it may be one of."""
    if "anyOf" in part.schema:
        return " or ".join(_kind(part.at(choice)) for choice in part.schema["anyOf"])
    kind = str(part.schema.get("type", "anything"))
    return f"{kind} ({part.schema['format']})" if "format" in part.schema else kind


def _fields(before: _Part, after: _Part, member: str) -> Iterator[Break]:
    was, now = before.schema.get("properties", {}), after.schema.get("properties", {})
    needed, needs = set(before.schema.get("required", ())), set(after.schema.get("required", ()))
    prefix = f"{member}." if member else ""
    for name in was:
        if name not in now:
            yield Break(prefix + name, "is gone")
            continue
        if name in needed - needs:
            yield Break(prefix + name, "was always there and is optional now")
        if name in needs - needed:
            yield Break(prefix + name, "was optional and is required now")
        yield from _compare(before.at(was[name]), after.at(now[name]), prefix + name)
    for name in now:
        if name not in was and name in needs:
            yield Break(prefix + name, "is new and required: only an optional field may be added")


def _values(before: Schema, after: Schema, member: str) -> Iterator[Break]:
    was, now = _allowed(before), _allowed(after)
    if (was is None) != (now is None):
        yield Break(
            member, "took any value and takes only some now" if was is None else "took only some values and takes any now"
        )
    for value in was or ():
        if now is not None and value not in now:
            yield Break(member, f"{_word(value)} is no longer a value of it")
    for value in now or ():
        if was is not None and value not in was:
            yield Break(member, f"{_word(value)} is a new value of it, unknown to whoever matches every case")


def _allowed(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _keywords(before: Schema, after: Schema, member: str) -> Iterator[Break]:
    """Bounds, patterns, defaults and whatever else a schema may say of a member."""
    for keyword in sorted((before.keys() | after.keys()) - _WORDS - _STRUCTURE):
        was, now = before.get(keyword), after.get(keyword)
        if was != now:
            yield Break(member, f"{keyword} was {_word(was)} and is {_word(now)} now{_direction(keyword, was, now)}")


def _direction(keyword: str, was: Any, now: Any) -> str:
    if keyword not in _LOWER | _UPPER:
        return ""
    narrower = was is None or (now is not None and (now > was) == (keyword in _LOWER))
    return ", so it refuses what was published" if narrower else ", so an old reader refuses what it allows"


def _word(value: Any) -> str:
    return "not there" if value is None else repr(value)
