"""The master key of a stack whose user sets none: in its state directory, with the one before it while it is rotated.

Every process reads them when it starts. Each step of a rotation leaves files with which all that is sealed can be opened,
so one that was interrupted is taken up where it stopped.
"""

import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Final

from deploy.local.environment import variable
from deploy.local.state import Home

KEY_BYTES: Final = 32
SEALED_WITH: Final = ("identity", "payments")
"""The services that keep something sealed."""

_CURRENT: Final = "master-key"
_PREVIOUS: Final = "previous-master-key"


class MasterKeyFiles:
    """What is in `secrets/`; nothing of it counts when the user has set `CARTWRIGHT_MASTER_KEY`."""

    def __init__(self, home: Home) -> None:
        """Touch nothing yet."""
        self._home = home

    @property
    def is_rotating(self) -> bool:
        """Whether there is a previous one, with which something may still be sealed."""
        return self._home.secret_file(_PREVIOUS).exists()

    def environment(self) -> Mapping[str, str]:
        """What the services are given of it at this moment."""
        if variable("MASTER_KEY"):
            return {}  # the user's go to the services like everything that he sets
        found = {"MASTER_KEY": self._home.secret(_CURRENT, random_key)}
        return {**found, "PREVIOUS_MASTER_KEY": self._home.secret(_PREVIOUS)} if self.is_rotating else found

    def begin(self) -> None:
        """Have a new key, and the one that was; one that was begun already goes on."""
        was = self._home.secret(_CURRENT, random_key)
        if self._home.secret(_PREVIOUS, lambda: was) == was:
            self._home.replace_secret(_CURRENT, random_key())

    def finish(self) -> None:
        """Forget the key before: nothing is sealed with it any more."""
        self._home.secret_file(_PREVIOUS).unlink(missing_ok=True)


def random_key() -> str:
    """A master key that nobody has."""
    return b64encode(secrets.token_bytes(KEY_BYTES)).decode()
