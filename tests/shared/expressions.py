"""What an expression of Prometheus asks for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SELECTOR: Final = re.compile(r"(?<![\w:$\"])([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})?(?!\s*\(|[\w:])")
_MATCHER: Final = re.compile(r'(\w+)(=~|!=|!~|=)"([^"]*)"')
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "offset", "by", "on"})


@dataclass(frozen=True, slots=True)
class Selector:
    """Some series of a metric: by which labels, and those that must be something in particular."""

    name: str
    labels: frozenset[str]
    equal: frozenset[tuple[str, str]]


def selectors(expression: str) -> Iterator[Selector]:
    """Every selector. Durations, functions and the labels by which it is grouped are none."""
    bare = re.sub(r"\[[^\]]*\]|offset \w+", "", _GROUPING.sub("", expression))
    for name, matchers in _SELECTOR.findall(bare):
        if name not in _WORDS and "_" in name + ":" and not name.isdigit():
            found = _MATCHER.findall(matchers)
            equal = frozenset((label, value) for label, kind, value in found if kind == "=")
            yield Selector(name, frozenset(label for label, _, _ in found), equal)
