"""Which tenants may begin nothing new: what identity tells of that, as each process that answers customers knows it.

Looked up with every request, so it is one look into a dictionary that is nearly always empty.
"""

from uuid import UUID

from libs.common.errors import DeniedError, ElsewhereError, UnavailableError

OPEN = frozenset({"provisioning", "active"})
"""A shop is set up before it is open to shoppers."""
ERASING, ERASED = "erasing", "erased"
"""How a tenant stands in the end, as identity tells it."""
GONE = frozenset({ERASING, ERASED})
"""Where nothing is to be had any more, not even to be read."""


class Standings:
    """What is known of each tenant, from `tenant.v1`. Of two words on one the later counts, whenever it is heard."""

    def __init__(self, *, follows: bool = False) -> None:
        """`follows`: it has yet to be told, and until it has heard all there was nothing begins."""
        self._is_whole = not follows
        self._versions: dict[UUID, int] = {}
        self._shut: dict[UUID, str] = {}

    def read_to_its_end(self) -> None:
        """The topic has told all that it had."""
        self._is_whole = True

    def learn(self, tenant_id: UUID, version: int, status: str) -> None:
        """Take one state of a tenant, unless a later one is known."""
        if version < self._versions.get(tenant_id, 0):
            return
        self._versions[tenant_id] = version
        if status in OPEN:
            self._shut.pop(tenant_id, None)
        else:
            self._shut[tenant_id] = status

    def demand_open(self, tenant_id: UUID) -> None:
        """Raise DeniedError when this tenant may begin nothing new, and UnavailableError while nobody can tell."""
        if not self._is_whole:
            raise UnavailableError("tenants-unavailable", "it is not known yet how this tenant stands; try again", retry_after=1)
        status = self._shut.get(tenant_id)
        if status is not None:
            raise shut(status)

    def demand_there(self, tenant_id: UUID) -> None:
        """Raise DeniedError when nothing is to be had of this tenant any more. Until that is known its tokens are over anyway."""
        status = self._shut.get(tenant_id)
        if status in GONE:
            raise shut(status)


def elsewhere(cell: str) -> ElsewhereError:
    """What whoever would decide on a tenant of another cell is told."""
    return ElsewhereError("tenant-moving", f"the tenant is in cell {cell}, or about to be: try again", retry_after=1)


def shut(status: str) -> DeniedError:
    """What whoever would begin something is told."""
    if status in GONE:
        return DeniedError(f"tenant-{status}", f"the tenant is {status}: of what it had here nothing is to be had any more")
    return DeniedError(f"tenant-{status}", f"the tenant is {status}: what was begun ends, and nothing new begins")
