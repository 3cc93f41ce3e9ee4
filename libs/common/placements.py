"""In which cell each tenant is, from `tenant.v1`, as each process that answers customers knows it.

Looked up with every request, so it is one look into a dictionary that is nearly always empty.
"""

from collections.abc import Iterable
from uuid import UUID

from libs.common.cells import MAIN
from libs.common.errors import UnavailableError


class Placements:
    """Of two words on one tenant the later counts, whenever it is heard. Of whom nothing was said, they are in the main cell."""

    def __init__(self, *, follows: bool = False) -> None:
        """`follows`: it has yet to be told, and until it has heard all nobody knows who is elsewhere."""
        self.is_whole = not follows
        self._versions: dict[UUID, int] = {}
        self._elsewhere: dict[UUID, str] = {}

    def read_to_its_end(self) -> None:
        """The topic has told all that it had."""
        self.is_whole = True

    def learn(self, tenant_id: UUID, version: int, cell: str) -> None:
        """Take one state of a tenant, unless a later one is known."""
        if version < self._versions.get(tenant_id, 0):
            return
        self._versions[tenant_id] = version
        if cell == MAIN:
            self._elsewhere.pop(tenant_id, None)
        else:
            self._elsewhere[tenant_id] = cell

    def cell(self, tenant_id: UUID) -> str:
        """Where a tenant is, as far as is known."""
        return self._elsewhere.get(tenant_id, MAIN)

    def cells(self) -> Iterable[str]:
        """Those that anybody is in, besides the main one."""
        return set(self._elsewhere.values())

    def demand_whole(self) -> None:
        """Raise UnavailableError while it is not known yet who is elsewhere."""
        if not self.is_whole:
            raise UnavailableError("tenants-unavailable", "it is not known yet where this tenant is; try again", retry_after=1)
