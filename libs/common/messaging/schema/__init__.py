"""The kernel's tables, the same in every service: outbox, inbox, idempotency keys, audit trail, erasures.

The outbox is insert-only. Rows are found by transaction id (`xid8`), read between two snapshots, and leave by TRUNCATE
of a whole slot of time once everything in it is published: no row lock, no UPDATE, no DELETE, no bloat.

Each module is one step. A step is what a released migration runs, so it changes no more; the next one goes on from it.
"""

from libs.common.messaging.schema.v1 import SLOTS, kernel_v1
from libs.common.messaging.schema.v2 import SLOT_SECONDS, kernel_v2
from libs.common.messaging.schema.v3 import kernel_v3
from libs.common.messaging.schema.v4 import KEEP_DECIDED, kernel_v4
from libs.common.messaging.schema.v5 import kernel_v5
from libs.common.messaging.schema.v6 import kernel_v6
from libs.common.messaging.schema.v7 import kernel_v7
from libs.common.messaging.schema.v8 import kernel_v8
from libs.common.messaging.schema.v9 import kernel_v9
from libs.common.messaging.schema.v10 import kernel_v10
from libs.common.messaging.schema.v11 import erasable, kernel_v11
from libs.common.messaging.schema.v12 import kernel_v12
from libs.common.messaging.schema.v13 import MOVES, kernel_v13, movable

__all__ = [
    "KEEP_DECIDED",
    "MOVES",
    "SLOTS",
    "SLOT_SECONDS",
    "erasable",
    "kernel_v1",
    "kernel_v2",
    "kernel_v3",
    "kernel_v4",
    "kernel_v5",
    "kernel_v6",
    "kernel_v7",
    "kernel_v8",
    "kernel_v9",
    "kernel_v10",
    "kernel_v11",
    "kernel_v12",
    "kernel_v13",
    "movable",
]
