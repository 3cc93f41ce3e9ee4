"""The figures as a person reads them; `--json` has them all."""

from collections.abc import Iterator, Mapping
from typing import Any


def print_report(figures: Mapping[str, Any]) -> None:
    """Print the raw rates first, then everything else, one figure a line."""
    for contender, rates in figures["messages_per_second"].items():
        print(
            f"{contender:<44} {rates['median']:>10,} a second, {rates['cpu_microseconds_each']} µs of CPU each  {rates['rounds']}"
        )
    print_figures({name: value for name, value in figures.items() if name != "messages_per_second"})


def print_figures(figures: Mapping[str, Any]) -> None:
    """Print every figure, one a line."""
    for name, value in _lines(figures):
        print(f"{name:<44} {value}")


def _lines(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
