"""From Kafka to the database: a poll is cut into batches, a batch is one transaction, and it knows where it stands.

The stored offset fences zombies (a member that was stopped past its session finds that the offset has moved on), the
watermark drops what a relay sent twice, and the effects, the outbox and both positions commit together (`batch.py`).
Kafka's own commit only feeds lag dashboards. An invalid message is rejected and listed; one whose decision fails is
parked, later messages of its key queue behind it, and every other key flows on (`parked.py`).

Two transactions are under way at once, never on one partition (`lanes.py`): while the database works on one, the next poll
is read and decided. What fails goes back to where the database says it stands, and what was polled after it is forgotten
and polled again. What others send is read apart from what we publish ourselves (`member.py`), in short transactions that
give way to purchases (`pace.py`).
"""

from libs.common.messaging.inbox.group import Inbox
from libs.common.messaging.inbox.kafka import kafka_broker
from libs.common.messaging.inbox.member import MAX_RECORDS

__all__ = ["MAX_RECORDS", "Inbox", "kafka_broker"]
