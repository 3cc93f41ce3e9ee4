"""What the routes of a service work with, and whose of it a tenant's requests take."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from libs.common.auth import Verifier
from libs.common.choices import Choices
from libs.common.http.elsewhere import Elsewhere
from libs.common.http.rates import Rates
from libs.common.messaging.hints import Hints
from libs.common.messaging.repairs import ParkedMessages
from libs.common.messaging.shell import Shell
from libs.common.shared import Shared
from libs.common.standings import Standings


@dataclass(slots=True)
class Service:
    """What the routes of a service work with; made by its composition root."""

    name: str
    shell: Shell
    hints: Hints
    verifier: Verifier
    shared: Shared = field(default_factory=Shared)
    rates: Rates = field(default_factory=Rates)
    parked: ParkedMessages | None = None
    """What its consumer group has parked, for routes that show it."""
    standings: Standings = field(default_factory=Standings)
    """Which tenants may begin nothing new."""
    choices: Choices = field(default_factory=Choices)
    """What they have chosen of limits and pages."""
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    """Which of them are in other cells, and what is there."""

    def shell_of(self, tenant_id: UUID) -> Shell:
        """What is done for a tenant is done by this one. Raises UnavailableError, as the next two do."""
        cell = self.elsewhere.of(tenant_id)
        return self.shell if cell is None else cell.shell

    def hints_of(self, tenant_id: UUID) -> Hints:
        """What tells that something of a tenant has changed."""
        cell = self.elsewhere.of(tenant_id)
        return self.hints if cell is None else cell.shell.hints

    def parked_of(self, tenant_id: UUID) -> ParkedMessages | None:
        """What was parked of a tenant's messages is among these."""
        cell = self.elsewhere.of(tenant_id)
        return self.parked if cell is None else cell.parked

    def every_shell(self) -> Sequence[Shell]:
        """One of each cell, for what is asked of all tenants."""
        return [self.shell, *(each.shell for each in self.elsewhere.every())]
