"""What must never be kept or told: card numbers, and the keys and secrets of a payment provider.

No field of ours asks for one, but any text may bring one along. Where a text is to be kept it is refused, where it is only
passed on (a log line, an answer) what is sensitive in it is left out.
"""

import re
from collections.abc import MutableMapping
from typing import Any

LEFT_OUT = "[left out]"

_CARD = re.compile(r"(?<![\w-])[2-6]\d(?:[ -]?\d){11,17}(?![\w-])")
"""Thirteen to nineteen digits that begin as the card networks' do. A UUID, which has letters or more of them, is none."""
_SECRET = re.compile(r"\b(?:sk|rk)_(?:live|test)_\w+|\bwhsec_\w+|\b[a-z]{2,4}_\w+_secret_\w+")
_CLUE = re.compile(r"\d{2}(?:[ -]?\d){11}|_(?:live|test|secret)_|whsec_")
"""What every one of them has, found fast, for nearly no text has it."""


def is_sensitive(text: str) -> bool:
    """Whether there is a card number, a key or a secret in it."""
    return without_sensitive(text) != text


def without_sensitive(text: str) -> str:
    """The text without what is sensitive in it."""
    if _CLUE.search(text) is None:
        return text
    return _SECRET.sub(LEFT_OUT, _CARD.sub(lambda found: LEFT_OUT if _is_card(found[0]) else found[0], text))


def all_without_sensitive(value: Any) -> Any:
    """The same for the texts in lists and mappings, their keys among them."""
    match value:
        case str():
            return without_sensitive(value)
        case dict():
            return {all_without_sensitive(name): all_without_sensitive(each) for name, each in value.items()}
        case list() | tuple():
            return [all_without_sensitive(each) for each in value]
        case _:
            return value


def leave_out_sensitive(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep it out of a log line."""
    return {name: all_without_sensitive(value) for name, value in event.items()}


def _is_card(digits: str) -> bool:
    """Luhn's check (ISO/IEC 7812-1, annex B)."""
    numbers = [int(each) for each in reversed(digits) if each.isdecimal()]
    doubled = [each * 2 - 9 if each > 4 else each * 2 for each in numbers[1::2]]
    return (sum(numbers[::2]) + sum(doubled)) % 10 == 0
