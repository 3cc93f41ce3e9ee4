"""Reading Kafka as others fill it: any codec, any transaction, any nonsense."""

from libs.common.messaging.reading.consumer import Consumer
from libs.common.messaging.reading.identity import Log
from libs.common.messaging.reading.notes import UNREADABLE, Note, Nothing, Place, Unreadable, note_of

__all__ = ["UNREADABLE", "Consumer", "Log", "Note", "Nothing", "Place", "Unreadable", "note_of"]
