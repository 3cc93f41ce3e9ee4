"""What a service is made of, in one typed value: its processes, its documents and the tests all read it.

Nothing heavy is loaded by it: what only one kind of process needs (routes, jobs) is asked for when that process starts.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from libs.common.cells import MAIN
from libs.common.database import Database, Projection, Rows
from libs.common.database.holdings import Holdings
from libs.common.decision import Aggregate, Handler, Handlers
from libs.common.keys import Keys
from libs.common.messaging.erasing import BuryTenant, Eraser, word_of
from libs.common.messaging.hints import Hints
from libs.common.messaging.shell import Shell
from libs.common.revocations import Revocations
from libs.common.settings import Settings
from libs.common.shared import Shared

if TYPE_CHECKING:
    from libs.common.http.routes import Routes

Kind = Literal["api", "worker"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A projection under a consumer group of its own, and the handlers that write it and nothing else."""

    projection: Projection
    handlers: Handlers


@dataclass(frozen=True, slots=True)
class Worker:
    """What a service's own jobs work with."""

    shell: Shell
    settings: Any
    shared: Shared


Job = Callable[[Worker], Coroutine[Any, Any, None]]
"""Runs for as long as the worker does."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a service, before it begins to work."""

    kind: Kind
    shell: Shell
    settings: Any
    keys: Keys
    """The signing keys it checks tokens with."""
    revocations: Revocations
    """What it knows to be revoked."""
    elsewhere: Callable[[UUID], Shell] | None = None
    """APIs: what is done for a tenant is done by this one, which is another cell's for tenants there."""

    def shell_of(self, tenant_id: UUID) -> Shell:
        """The shell on a tenant's database. Raises UnavailableError for a cell that this process does not have."""
        return self.shell if self.elsewhere is None else self.elsewhere(tenant_id)


Context = Callable[[Process], AbstractAsyncContextManager[object]]
"""Opens what a process shares for as long as it lives."""


@asynccontextmanager
async def no_context(_process: Process) -> AsyncIterator[None]:
    """Share nothing, as most services do."""
    yield


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceParts:
    """One service."""

    name: str
    settings: type[Settings]
    rows: Sequence[Rows[Any]]
    """Every kind of aggregate it keeps, in the order in which they are locked."""
    handlers: Handlers
    topics: Sequence[str]
    """What its consumer group reads."""
    holdings: Holdings
    """What it keeps of tenants, which is what they take away and what is erased."""
    bury: Handler[BuryTenant, Any] | None = None
    """What it says once it has nothing of a tenant any more. None: its own `tenant.erased`."""
    is_in_cells: bool = True
    """Whether each cell has a database of it. One that has one for all asks nobody where a tenant is."""
    has_jobs: bool = False
    """Whether there is work that no message starts."""
    announce: frozenset[type[Aggregate]] = frozenset()
    """Whose changes somebody may be waiting for."""
    announced_by_requests: frozenset[type[Aggregate]] = frozenset()
    """The same, where only a worker waits for what a request changed."""
    projections: Sequence[Projection] = ()
    """What can be rebuilt of what its own group keeps."""
    apart: Sequence[Kept] = ()
    context: Context = no_context
    bootstrap: Callable[[], None] | None = None
    """Makes the rows that nobody else could make, after a migration and as the owner."""
    is_patient: bool = False
    """Whether its worker may hear of an event 0.25 s later, for fewer wake-ups."""

    @property
    def handlers_apart(self) -> Mapping[str, Handlers]:
        """By name, the handlers of the projections that have groups of their own."""
        return {each.projection.name: each.handlers for each in self.apart}

    @property
    def groups(self) -> Sequence[str]:
        """Its consumer groups, as they are called in the main cell."""
        return [self.name, *(f"{self.name}.{name}" for name in self.handlers_apart)]

    @property
    def routes(self) -> "Routes":
        """HTTP in, from the service's `api`. A worker never loads it."""
        routes: Routes = import_module(f"services.{self.name}.api").ROUTES
        return routes

    @property
    def jobs(self) -> Sequence[Job]:
        """Time in, from the service's `jobs`. An API process never loads it."""
        jobs: Sequence[Job] = import_module(f"services.{self.name}.jobs").JOBS if self.has_jobs else ()
        return jobs

    def eraser(self, shell: Shell) -> Eraser:
        """What takes tenants out of its database, once they are to be erased."""
        return Eraser(shell, self.holdings, self.bury or word_of(self.name))

    def shell(self, database: Database, hints: Hints, kind: Kind, *, cell: str = MAIN) -> Shell:
        """Its handlers on its database, in one process."""
        announce = self.announce | (self.announced_by_requests if kind == "api" else frozenset())
        of_cell = cell if self.is_in_cells else None
        return Shell(database, self.rows, self.handlers, service=self.name, hints=hints, announce=announce, cell=of_cell)
