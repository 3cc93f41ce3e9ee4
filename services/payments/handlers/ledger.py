"""How an entry gets into the ledger: with the decision that moves the money, in its transaction."""

from collections.abc import Iterable
from dataclasses import replace

from libs.common.decision import World
from services.payments.domain.money.ledger import Entry


def post(world: World, entries: Iterable[Entry]) -> None:
    """Put entries into the ledger. One that is there already, by its id, stays as it is and no second is made."""
    for entry in entries:
        world.save(replace(entry, posted_at=world.now))
