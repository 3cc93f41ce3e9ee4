"""Values of a chart, each declared once: its schema, the file of its defaults and the table that explains it are made of that."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

WIDTH: Final = 118
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Value:
    """One value: what it is for, what holds unless it is set, and what it may be."""

    says: str
    default: Any
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """Values that belong together. Nothing else may stand among them."""

    says: str
    members: "Mapping[str, Value | Group]" = field(default_factory=dict)


def text(says: str, default: str = "", **schema: Any) -> Value:
    """Some text."""
    return Value(says, default, {"type": "string", **schema})


def wanted(says: str) -> Value:
    """Some text without which nothing can be installed."""
    return Value(says, "", {"type": "string", "minLength": 1})


def whole(says: str, default: int, least: int = 0, most: int | None = None) -> Value:
    """A whole number."""
    return Value(says, default, {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})})


def switch(says: str, *, default: bool) -> Value:
    """On or off."""
    return Value(says, default, {"type": "boolean"})


def choice(says: str, default: str, *others: str) -> Value:
    """One of a few words."""
    return Value(says, default, {"enum": [default, *others]})


def listed(says: str, items: Mapping[str, Any], *default: Any) -> Value:
    """A list; the same thing twice is a mistake."""
    return Value(says, [*default], {"type": "array", "items": dict(items), "uniqueItems": True})


def anything(says: str, default: Mapping[str, Any] | None = None) -> Value:
    """What Kubernetes has a schema of, and is passed on as it is."""
    return Value(says, dict(default or {}), {"type": "object"})


def schema_of(declared: Value | Group) -> Schema:
    """The JSON schema. A group is closed: a misspelt value is refused instead of doing nothing."""
    if isinstance(declared, Value):
        return {"description": declared.says, **declared.schema, "default": declared.default}
    properties = {name: schema_of(member) for name, member in declared.members.items()}
    return {"type": "object", "description": declared.says, "additionalProperties": False, "properties": properties}


def defaults_of(declared: Value | Group) -> Any:
    """What holds unless it is set."""
    if isinstance(declared, Value):
        return declared.default
    return {name: defaults_of(member) for name, member in declared.members.items()}


def rows_of(declared: Group, before: str = "") -> Iterator[tuple[str, str, str]]:
    """A row for each value: its place, its default, what it is for."""
    for name, member in declared.members.items():
        place = f"{before}{name}"
        if isinstance(member, Group):
            yield from rows_of(member, f"{place}.")
        else:
            yield place, "required" if _is_wanted(member) else json.dumps(member.default), member.says


def file_of(declared: Group, depth: int = 0) -> Iterator[str]:
    """The file of the defaults, line by line, each value below what it is for."""
    indent = "  " * depth
    for name, member in declared.members.items():
        if depth == 0:
            yield ""
        yield from (f"{indent}# {line}" for line in _folded(member.says, WIDTH - len(indent)))
        if isinstance(member, Group):
            yield f"{indent}{name}:" + ("" if member.members else " {}")
            yield from file_of(member, depth + 1)
        else:
            yield f"{indent}{name}: {json.dumps(member.default, ensure_ascii=False)}"


def _is_wanted(value: Value) -> bool:
    return value.default == "" and bool(value.schema.get("minLength"))


def _folded(said: str, width: int) -> Iterator[str]:
    line = ""
    for word in said.split():
        if line and len(line) + len(word) >= width:
            yield line
            line = ""
        line = f"{line} {word}".strip()
    yield line
