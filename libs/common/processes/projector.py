"""A projection under a consumer group of its own: it reads at its own pace, and what it has not read yet holds nobody up.

It is written with the inbox's own machinery, so every event counts once; what it cannot take is parked like any other
message, under ids that begin with the projection's name.
"""

from libs.common.messaging.broker import Broker
from libs.common.messaging.inbox import Inbox
from libs.common.messaging.rebuild import Rebuilder
from libs.common.messaging.repairs import ParkedMessages
from libs.common.messaging.shell import Shell
from libs.common.processes.parts import Kept


class Projector:
    """Keeps one projection in one worker."""

    def __init__(
        self,
        service: str,
        kept: Kept,
        of: Shell,
        broker: Broker,
        *,
        adopts_new_logs: bool,
        source_budget: int,
    ) -> None:
        self.name = kept.projection.name
        group = f"{service}.{self.name}"
        shell = Shell(of.database, [kept.projection.live], kept.handlers, service=service, hints=of.hints, cell=of.cell)
        self.inbox = Inbox(
            shell,
            broker,
            group=group,
            topics=kept.projection.topics,
            source_budget=source_budget,
            patient=True,
            adopts_new_logs=adopts_new_logs,
        )
        self.rebuilder = Rebuilder(shell, broker, group=group, projections=[kept.projection])
        self.parked = ParkedMessages(shell, self.inbox.reader, self.inbox.group)
