"""Cells: sets of databases with workers of their own. Each tenant is in one, and its rows are nowhere else.

Topics are shared, and so are APIs, which ask the database of the tenant's cell. Identity is one for all.
"""

from typing import Final

MAIN: Final = "main"
"""The cell that is there when nobody speaks of cells, and in which tenants begin."""

NAME: Final = "^[a-z][a-z0-9]{0,15}$"
"""How cells are called, as it stands in names of consumer groups, relays and databases."""


def in_cell(name: str, cell: str) -> str:
    """What this is called in a cell: as it always was in the main one."""
    return name if cell == MAIN else f"{name}.{cell}"
