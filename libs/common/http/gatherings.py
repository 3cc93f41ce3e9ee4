"""Gatherings of all cells: callers stand in line with those who want rows of the same database."""

from libs.common.messaging.gathering import Gathering
from libs.common.messaging.shell import Shell


class Gatherings:
    """One for each shell that is asked for, from then on."""

    def __init__(self) -> None:
        self._of: dict[Shell, Gathering] = {}

    def of(self, shell: Shell) -> Gathering:
        """Those who want something of this one."""
        found = self._of.get(shell)
        if found is None:
            found = self._of[shell] = Gathering(shell)
        return found
