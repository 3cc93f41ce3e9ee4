"""What all that happens in one process shares, asked for by its type: a service's context makes it when the process starts."""

from typing import TypeVar

C = TypeVar("C")


class Shared:
    """Holds the service's own values, one or a tuple of several; calling it with a type answers the one of that type."""

    __slots__ = ("_made",)

    def __init__(self, made: object = None) -> None:
        self._made = made if isinstance(made, tuple) else (made,)

    def __call__(self, kind: type[C]) -> C:
        """The value. Raises TypeError when the service's context makes none such."""
        for each in self._made:
            if isinstance(each, kind):
                return each
        made = " and ".join(type(each).__name__ for each in self._made)
        message = f"the service's context made {made}, and {kind.__name__} was asked for"
        raise TypeError(message)
