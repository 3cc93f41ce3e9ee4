"""What writes the timeline: every event of the purchase path, one entry each. It decides nothing, and moves no saga."""

from typing import Any, Final

from libs.common.contracts import Event, cart, checkout, fulfilment, payments
from libs.common.decision import Handlers, Message, World
from services.checkout.domain.timeline import entry_of

TIMELINE = Handlers()
"""A table of its own: the saga's consumer group reacts to other events, and each group reads at its own pace."""

NOT_OF_AN_ORDER: Final = frozenset(
    {"tenant.provisioned", "card-testing.suspected", "stock.availability-changed", "promotion.changed", "promotion.removed"}
)


def write_down(world: World, message: Message[Any]) -> None:
    """Add an entry. Nothing is loaded for it: one that is there already stays as it is."""
    entry = entry_of(message)
    if entry is not None:
        world.save(entry)


for publisher in (cart, checkout, fulfilment, payments):
    for event in vars(publisher).values():
        if isinstance(event, type) and issubclass(event, Event) and event is not Event and event.TYPE not in NOT_OF_AN_ORDER:
            TIMELINE.on(event, lambda _: ())(write_down)
