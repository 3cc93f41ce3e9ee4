"""CSV (RFC 4180) in which a row that is broken is one row that is broken: what follows it is read all the same."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from libs.common.json_text import is_keepable

MAX_LINES: Final = 100
MAX_CHARACTERS: Final = 100_000
"""A quoted cell may have line ends in it, but no row is as long as this: its quote was never closed."""
_UNFINISHED: Final = "unexpected end of data"


def records(lines: Iterable[str]) -> Iterator[tuple[str, list[str] | None]]:
    """Yield each row that is not empty, as it stands and cut into cells. None: it cannot be cut, or is no text.

    A quote that is never closed costs its own line: those after it are looked at again.
    """
    source, again = iter(lines), deque[str]()
    width = 0
    while (line := again.popleft() if again else next(source, None)) is not None:
        text, taken = line, list[str]()
        cells, is_open = _cut(text)
        while is_open and len(taken) < MAX_LINES and len(text) < MAX_CHARACTERS:
            following = again.popleft() if again else next(source, None)
            if following is None:
                break
            taken.append(following)
            text += following
            cells, is_open = _cut(text)
        if taken and (cells is None or (width and len(cells) != width)):
            again.extendleft(reversed(taken))
            text, cells = line, None
        width = width or len(cells or ())
        if cells != []:
            yield text, cells


def _cut(text: str) -> tuple[list[str] | None, bool]:
    """The cells of a row; and whether a quote is open at its end."""
    if not is_keepable(text):
        return None, False
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        return None, str(error) == _UNFINISHED
    return (rows[0] if rows else []), False
