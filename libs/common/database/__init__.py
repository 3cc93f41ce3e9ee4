"""Postgres as the services use it: transactions for named tenants, statements compiled once, aggregates by the batch.

SQLAlchemy describes the tables and the rarer queries; everything runs on asyncpg directly (four times as many small
transactions on one core). Nothing here reads or writes a tenant's row outside `Database.transaction`.

Tables without a tenant, and why: `outbox_cursor` and `inbox_position` are positions in streams that all tenants share;
`outbox_topic` is what a topic had when it was first used; `inbox_message` remembers ids by their publisher, before anybody
looks inside; `operator_action` is what was done about parked messages before there was an audit trail; `alembic_version` is
Alembic's.
"""

from libs.common.database.connections import PLANNING, SHED, Database
from libs.common.database.migrations import SERVICES, alembic_config, migrate, run_migrations
from libs.common.database.opening import opened
from libs.common.database.passing import (
    NEVER_PASSING,
    PASSING,
    TRANSIENT,
    ConcurrencyError,
    never_passes,
    passes_by_itself,
)
from libs.common.database.polling import WHATEVER_IT_SAYS, poll
from libs.common.database.rows import Projection, Rows
from libs.common.database.statements import Select, Statement, Write, select, write
from libs.common.database.timing import keep_time
from libs.common.database.wire import Connection, fetch

__all__ = [
    "NEVER_PASSING",
    "PASSING",
    "PLANNING",
    "SERVICES",
    "SHED",
    "TRANSIENT",
    "WHATEVER_IT_SAYS",
    "ConcurrencyError",
    "Connection",
    "Database",
    "Projection",
    "Rows",
    "Select",
    "Statement",
    "Write",
    "alembic_config",
    "fetch",
    "keep_time",
    "migrate",
    "never_passes",
    "opened",
    "passes_by_itself",
    "poll",
    "run_migrations",
    "select",
    "write",
]
