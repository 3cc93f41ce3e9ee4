"""An event's headers as the outbox keeps them, so that the relay need not take them apart letter by letter.

Names in one line with commas between them, then each value in a line of its own. Headers with a line break in a value,
and all that were written before this format, are a JSON list of pairs; both are read for ever.
"""

import orjson

NAMES: dict[bytes, tuple[str, ...]] = {}
"""There are as many combinations of names as there are kinds of events, or nearly."""
MAX_COMBINATIONS = 1_000


class UnreadableHeadersError(ValueError):
    """No record can be made of this row."""


def pack(headers: list[tuple[str, str]]) -> bytes:
    """Write headers as one row's column."""
    if any("\n" in value for _, value in headers):
        return orjson.dumps(headers)
    return "\n".join([",".join([name for name, _ in headers]), *[value for _, value in headers]]).encode()


def unpack(stored: bytes) -> list[tuple[str, bytes]]:
    """Read them as Kafka's client wants them. Raises UnreadableHeadersError."""
    try:
        if stored[:1] == b"[":
            return [(name, value.encode()) for name, value in orjson.loads(stored)]
        line, *values = stored.split(b"\n")
        return list(zip(NAMES.get(line) or _names(line), values, strict=True))
    except (ValueError, TypeError, AttributeError) as error:
        raise UnreadableHeadersError(str(error)) from error


def traceparent_of(stored: bytes) -> str | None:
    """The context that the insert stored. What cannot be read the relay sets aside, so here it is only left out."""
    try:
        return dict(unpack(stored)).get("traceparent", b"").decode()
    except ValueError:
        return None


def _names(line: bytes) -> tuple[str, ...]:
    names = tuple(line.decode().split(","))
    if len(NAMES) < MAX_COMBINATIONS:
        NAMES[line] = names
    return names
