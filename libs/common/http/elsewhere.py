"""What an API has of other cells than the main one, and which tenants it asks there.

With no other cell, and nobody placed in one, it costs a request one look into an empty dictionary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from libs.common.cells import MAIN
from libs.common.errors import UnavailableError
from libs.common.messaging.repairs import ParkedMessages
from libs.common.messaging.shell import Shell
from libs.common.placements import Placements

RETRY_SECONDS = 5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell, as an API has it."""

    shell: Shell
    parked: ParkedMessages
    """What its consumer group has parked there."""


@dataclass(slots=True)
class Elsewhere:
    """The other cells of a process, by name, and who is in which."""

    placements: Placements = field(default_factory=Placements)
    cells: Mapping[str, Cell] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def of(self, tenant_id: UUID) -> Cell | None:
        """Where a tenant is; None in the main cell. Raises UnavailableError for a cell that this process does not have."""
        if self.cells:
            self.placements.demand_whole()
        name = self.placements.cell(tenant_id)
        return None if name == MAIN else self._named(name)

    def every(self) -> Sequence[Cell]:
        """All of them. Raises UnavailableError where anybody is in one that this process does not have."""
        if self.cells:
            self.placements.demand_whole()
        for name in self.placements.cells():
            self._named(name)
        return [*self.cells.values()]

    def _named(self, name: str) -> Cell:
        found = self.cells.get(name)
        if found is not None:
            return found
        if name not in self._told:  # with each request it would fill the log
            self._told.add(name)
            action = f"give this API the cell's database: CARTWRIGHT_CELL_DATABASE_URLS, a JSON object with a member {name!r}"
            log.error("cell.unavailable", cell=name, action=action)
        detail = "the cell that this tenant is in cannot be reached from here; try again shortly"
        raise UnavailableError("cell-unavailable", detail, retry_after=RETRY_SECONDS)
