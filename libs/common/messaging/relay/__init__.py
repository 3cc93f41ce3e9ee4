"""From the outbox to Kafka: snapshot windows, in order, each chunk acknowledged before the next.

A window is everything committed between two snapshots, `lo` and `hi`; its rows in a fixed order carry the ordinals
1, 2, 3… and with timeline and window number their position. A crash sends the same rows again under the same
positions, so a consumer needs one watermark and no memory. Two relays alive at once do no harm: whoever loses the
compare-and-set on the cursor stops and reads it again.

Inside a window tenants take turns: the order is (round, id), where the round counts the rows of one tenant. A key
belongs to one tenant, and one tenant's rows keep their order, so fairness costs no key its order. What is committed
after a window opened waits until that is published: at most the rows in it, divided by the relay's rate.

A row that the broker refuses for good is parked with its reason, and so is every later row of its key, in this
window and after it, until an operator replays or discards them (`parked`). All else flows on.
"""

from libs.common.messaging.relay.loop import Relay

__all__ = ["Relay"]
