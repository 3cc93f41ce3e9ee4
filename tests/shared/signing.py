"""An issuer on a real database, as an API process of identity has it."""

import time
from collections.abc import Callable
from datetime import timedelta

from libs.common.auth import Verifier
from libs.common.keys import Keys
from libs.common.messaging.shell import Shell
from services.identity.api.issuer import Issuer
from services.identity.api.keyring import KeyRing, Terms
from services.identity.api.raised import Raised
from services.identity.api.seals import Seals
from tests.shared.callers import ISSUER
from tests.shared.roots import root_of

MASTER_KEY = b"m" * 32
MONTH = timedelta(days=30)


def ring_of(
    shell: Shell,
    keys: Keys,
    *,
    seals: Seals | None = None,
    lead: float = 0,
    period: timedelta = MONTH,
    clock: Callable[[], float] = time.monotonic,
) -> KeyRing:
    """The keys of one process, not read yet."""
    terms = Terms(timedelta(seconds=lead), period)
    return KeyRing(shell, keys, root_of(ISSUER), seals or Seals(MASTER_KEY), terms, issuer=ISSUER, clock=clock)


async def issuer_of(shell: Shell, verifier: Verifier) -> Issuer:
    """What signs tokens that this verifier believes, and until they are revoked."""
    ring, raised = ring_of(shell, verifier.keys), Raised(verifier.revocations)
    shell.after_commit.append(raised.learn)
    await ring.start()
    return Issuer(ring, raised, address=ISSUER)
