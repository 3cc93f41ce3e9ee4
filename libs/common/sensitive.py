"""What must never be kept or told: card numbers, and the keys and secrets of a payment provider.

No field of ours asks for one, but any text may bring one along. What is sensitive in what people write, in a log line or in
an answer is left out (`kept`); what is to be a name is refused with it (`is_name`).

Not every long number is a card's. What passes Luhn's check, and begins and is as long as a card network issues them, is
taken for one; an IMEI, a phone number, a GTIN, a time or an order number is not. What cannot be told apart (sixteen digits
after a 4) is a card in what people write, and itself where a field is an id (`IDS`).
"""

import re
from collections.abc import MutableMapping
from typing import Any

LEFT_OUT = "[left out]"

IDS = re.compile(r"(?:.*_)?(?:id|ids|sku|skus|number|key|hash|digest|phone|imei|location)")
"""Names of fields that hold ids alone: a number there is somebody's, and is told as it is."""

_GAP = r"[\s\u00ad\u200b-\u200d\u2010-\u2015\u2060\u2212-]{0,2}"
"""What may stand between any two digits: white space and dashes, those that nobody sees among them."""
_CARD = re.compile(rf"(?<![\w+-])\d\d(?:{_GAP}\d){{12,17}}(?![\w-])")
"""Fourteen to nineteen digits. A UUID, which has letters or more of them, is none, and after a plus stands a phone number."""
_APART = r"\D{1,24}"
_GROUPS = re.compile(
    rf"(?<![\w+-])\d{{4}}(?:{_APART}\d{{4}}{_APART}\d{{4}}{_APART}\d{{4}}(?:{_APART}\d{{3}})?|{_APART}\d{{6}}{_APART}\d{{4,5}})(?![\w-])"
)
"""The groups that are printed on a card, whatever is written between them: points, slashes, a few words."""
_NETWORKS = re.compile(
    r"""4\d{15}(?:\d{3})?                                                        # Visa
    | (?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}        # Mastercard
    | 3[47]\d{13}                                                              # American Express
    | (?:6011|64[4-9]\d|65\d\d)\d{12}(?:\d{3})?                                # Discover
    | 35(?:2[89]|[3-8]\d)\d{12}                                                # JCB
    | (?:30[0-5]\d|3095|36\d\d|3[89]\d\d)\d{10}(?:\d{2})?                      # Diners Club
    | 62\d{14,17}                                                              # UnionPay
    | (?:5018|5020|5038|5893|6304|6759|676[1-3])\d{12}(?:\d{3})?               # Maestro""",
    re.VERBOSE,
)
"""What each network issues (ISO/IEC 7812 issuer ranges), by beginning and length."""
_SECRET = re.compile(r"\b(?:sk|rk)_(?:live|test)_\w+|\bwhsec_\w+|\b[a-z]{2,4}_\w+_secret_\w+")
_CLUE = re.compile(rf"\d\d(?:{_GAP}\d){{11}}|\d{{4}}{_APART}\d{{4}}(?:\d\d)?{_APART}\d{{4}}|_(?:live|test|secret)_|whsec_")
"""What every one of them has, found fast, for nearly no text has it."""


def is_sensitive(text: str) -> bool:
    """Whether there is a card number, a key or a secret in it."""
    return without_sensitive(text) != text


def without_sensitive(text: str) -> str:
    """The text without what is sensitive in it."""
    if _CLUE.search(text) is None:
        return text
    for digits in (_CARD, _GROUPS):
        text = digits.sub(lambda found: LEFT_OUT if _is_card(found[0]) else found[0], text)
    return _SECRET.sub(LEFT_OUT, text)


def kept(text: str) -> str:
    """What somebody wrote, as we keep it: without what is sensitive, and no longer than it was."""
    return without_sensitive(text)[: len(text)]


def is_name(text: str) -> bool:
    """Whether something may be called so: a name cannot be kept in part, two would become one.

    Digits and nothing else are somebody's number; the same digits written as on a card are a card's.
    """
    return (text.isascii() and text.isdecimal()) or not is_sensitive(text)


def all_without_sensitive(value: Any) -> Any:
    """The same for the texts in lists and mappings, their keys among them."""
    match value:
        case str():
            return without_sensitive(value)
        case dict():
            return {all_without_sensitive(name): _member(name, each) for name, each in value.items()}
        case list() | tuple():
            return [all_without_sensitive(each) for each in value]
        case _:
            return value


def leave_out_sensitive(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep it out of a log line."""
    return {name: _member(name, value) for name, value in event.items()}


def _member(name: Any, value: Any) -> Any:
    """A member without what is sensitive; an id may be digits that would pass for a card's."""
    if isinstance(name, str) and isinstance(value, str) and IDS.fullmatch(name) and is_name(value):
        return value
    return all_without_sensitive(value)


def _is_card(digits: str) -> bool:
    """A network's number that passes Luhn's check (ISO/IEC 7812-1, annex B)."""
    written = "".join(str(int(each)) for each in digits if each.isdecimal())
    if _NETWORKS.fullmatch(written) is None:
        return False
    numbers = [int(each) for each in reversed(written)]
    doubled = [each * 2 - 9 if each > 4 else each * 2 for each in numbers[1::2]]
    return (sum(numbers[::2]) + sum(doubled)) % 10 == 0
