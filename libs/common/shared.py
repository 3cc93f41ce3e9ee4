"""What all that happens in one process shares, asked for by its type: a service's context makes it when the process starts."""

from typing import TypeVar

C = TypeVar("C")


class Shared:
    """Holds one value of the service's own; calling it with a type answers the value, which is of that type."""

    __slots__ = ("_made",)

    def __init__(self, made: object = None) -> None:
        self._made = made

    def __call__(self, kind: type[C]) -> C:
        """The value. Raises TypeError when the service's context makes another."""
        if not isinstance(self._made, kind):
            message = f"the service's context made {type(self._made).__name__}, and {kind.__name__} was asked for"
            raise TypeError(message)
        return self._made
