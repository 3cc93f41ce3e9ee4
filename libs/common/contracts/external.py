"""What other systems' events are made of. Nothing in them is trusted, so every member says exactly what it may hold.

A mark narrows the type that it stands beside, for whoever validates and for whoever writes the JSON Schema: both take it
from here, so that they cannot differ. What a schema has no words for (NFC, a day that the calendar has) its description
says. Members that nobody here knows are ignored: a publisher may know more than we do.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from annotated_types import Ge, Le, MaxLen, MinLen

from libs.common.contracts.currencies import KNOWN_CURRENCIES
from libs.common.sensitive import is_name, kept

CONTROLS: Final = r"\u0000-\u001f\u007f-\u009f"
"""C0 and C1 of Unicode, as a class of characters."""
WHITE: Final = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
"""White space that is no control, as a class of characters."""
FIRST_YEAR, LAST_YEAR = 1970, 2199
"""A time outside of these is a mistake, and one at the end of time breaks whatever adds to it."""

MAX_STEP: Final = 1_000_000_000
"""A sequence that is further than this above the last is a mistake, and believing it would be the end of all that is smaller."""

_SKU: Final = re.compile(f"[^{CONTROLS}{WHITE}](?:[^{CONTROLS}]{{0,62}}[^{CONTROLS}{WHITE}])?")
_MOMENT: Final = (
    r"(19[7-9][0-9]|2[01][0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_UUID: Final = r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
RFC3339: Final = re.compile(_MOMENT, re.ASCII)
CANONICAL_UUID: Final = re.compile(_UUID, re.ASCII)


def is_next(sequence: int, last: int) -> bool:
    """Whether a publisher's sequence can follow on its last, 0 when there is none. A gap is possible, a leap is not."""
    return sequence <= last + MAX_STEP


def is_sku(text: str) -> bool:
    """Whether this may be a SKU: 1 to 64 characters of any Unicode but controls, in NFC, without white space around it."""
    return _SKU.fullmatch(text) is not None and is_nfc(text)


def is_nfc(text: str) -> bool:
    """Whether the text is composed (Unicode, UAX #15): else one SKU could be written in two ways. Half a pair is no text."""
    return text.isascii() or (unicodedata.is_normalized("NFC", text) and text.encode(errors="ignore").decode() == text)


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """Narrows a type. `core` is merged into a validator's schema of it, `schema` into the JSON Schema."""

    core: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict)
    pattern: str | None = None
    """What a text must match before it is read, as a regular expression without look-around."""
    check: Callable[[Any], bool] | None = None
    """What no pattern can say."""
    says: str = ""
    """What is told of a value that matches or passes neither."""
    keeps: Callable[[Any], Any] | None = None
    """What is kept of a value that is otherwise as it should be."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The validator's schema. A schema is plain data, so nothing of the framework is needed to write one."""
        read: dict[str, Any] = {**handler(source), **self.core}
        if self.pattern is not None:
            matching = {"type": "str", "strict": True, "pattern": f"^(?:{self.pattern})$"}
            text = read if read["type"] == "str" else {"type": "str", "strict": True}
            steps = [text, self._told(matching)] + ([read] if read is not text else [])
            read = {"type": "chain", "steps": steps}
        if self.check is not None:
            read = {"type": "function-after", "schema": read, "function": {"type": "no-info", "function": self._checked}}
            read = read if self.pattern is None else self._told(read)
        if self.keeps is not None:
            read = {"type": "function-after", "schema": read, "function": {"type": "no-info", "function": self.keeps}}
        return read

    def __get_pydantic_json_schema__(self, core: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The JSON Schema: that of the type itself, narrowed."""
        return {**handler(core), **self.schema}

    def _told(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"type": "custom-error", "schema": schema, "custom_error_type": "malformed", "custom_error_message": self.says}

    def _checked(self, value: Any) -> Any:
        if self.check is not None and not self.check(value):
            raise ValueError(self.says)
        return value


def _without(characters: str, *, around: str = "") -> Mapping[str, Any]:
    """The same in JSON Schema's words: as something that must not be found, which means the same in every dialect."""
    found = f"[{characters}]" + (f"|^[{around}]|[{around}]$" if around else "")
    return {"not": {"pattern": found}}


WRITTEN: Final = Mark(keeps=kept)
"""People write it, so a card's number or a key may be in it, which we do not keep. Stands last, behind what bounds the text."""
NAMED: Final = Mark(check=is_name, says="It has a card number, a key or a secret in it")
"""Something is called so, here or elsewhere: refused rather than kept in part."""

_INTEGER: Final = Mark(core={"strict": True})
"""No truth value, no text, and nothing with a point or an exponent."""
_LINE: Final = Mark(
    pattern=f"[^{CONTROLS}]*",
    schema=_without(CONTROLS),
    says="It is text on one line: no control characters",
)


def _may_be_sku(text: str) -> bool:
    return is_nfc(text) and is_name(text)


Sku = Annotated[
    str,
    MinLen(1),
    MaxLen(64),
    Mark(
        core={"strict": True},
        pattern=_SKU.pattern,
        check=_may_be_sku,
        schema=_without(CONTROLS, around=WHITE)
        | {"description": "Any Unicode but controls, in NFC, without white space around it; upper and lower case differ."},
        says="A SKU is 1 to 64 characters of any Unicode but controls, in NFC, without white space around it; no card's number",
    ),
]
Line = Annotated[str, MaxLen(500), _LINE, WRITTEN]
"""Something to read, on one line."""
Name = Annotated[str, MinLen(1), MaxLen(64), _LINE, NAMED]
"""What the other system calls something: a location, a shipment, a return, a line of an order."""
Currency = Annotated[
    str,
    Mark(
        pattern="[A-Z]{3}",
        check=KNOWN_CURRENCIES.__contains__,
        schema={"enum": sorted(KNOWN_CURRENCIES)},
        says="It is a currency of ISO 4217, in capitals",
    ),
]
Minor = Annotated[int, Ge(0), Le(9_000_000_000_000_000), _INTEGER]
Count = Annotated[int, Ge(0), Le(1_000_000_000), _INTEGER]
Delta = Annotated[int, Ge(-1_000_000_000), Le(1_000_000_000), _INTEGER]
Quantity = Annotated[int, Ge(1), Le(1_000_000), _INTEGER]
Truth = Annotated[bool, Mark(core={"strict": True})]
Id = Annotated[
    UUID,
    Mark(
        pattern=_UUID,
        schema={"type": "string", "format": "uuid", "pattern": f"^{_UUID}$", "maxLength": 36},
        says="It is a UUID with its four hyphens",
    ),
]
Moment = Annotated[
    datetime,
    Mark(
        core={"tz_constraint": "aware"},
        pattern=_MOMENT,
        schema={
            "type": "string",
            "format": "date-time",
            "pattern": f"^{_MOMENT}$",
            "maxLength": 35,
            "description": f"RFC 3339, with its offset, from {FIRST_YEAR} to {LAST_YEAR}.",
        },
        says=f"It is a time of RFC 3339 with its offset, from {FIRST_YEAR} to {LAST_YEAR}",
    ),
]
