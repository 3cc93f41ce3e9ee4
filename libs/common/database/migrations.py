"""Migrations: how Alembic is run on a service's database."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import MetaData

SERVICES = Path(__file__).resolve().parents[3] / "services"
KERNEL = ("outbox_", "inbox_", "idempotency_", "operator_", "timer", "audit_", "erasure", "departure")


def migrate(service: str, owner_url: str) -> None:
    """Bring a service's database to the newest migration."""
    from alembic import command

    command.upgrade(alembic_config(service, owner_url), "head")


def alembic_config(service: str, owner_url: str) -> Any:
    """How Alembic finds a service's migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SERVICES / service / "migrations"))
    config.attributes["owner_url"] = owner_url
    return config


def run_migrations(metadata: "MetaData") -> None:
    """What every `migrations/env.py` calls: run on the owner's connection, giving up rather than queueing on a lock."""
    from alembic import context
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    from libs.common.database.opening import UNCONNECTED, Connection, opened, unconnected

    def run(connection: Any) -> None:
        connection.execute(text("SET lock_timeout = '3s'"))
        context.configure(connection=connection, target_metadata=metadata, include_name=_not_the_kernel)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()

    async def connect() -> Connection:
        try:
            return await opened(context.config.attributes["owner_url"], settings={"application_name": "migrate"})
        except UNCONNECTED as error:
            raise unconnected(error) from error

    async def main() -> None:
        # The driver reads the address itself: SQLAlchemy knows neither several servers nor how they are trusted.
        engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(run)
        await engine.dispose()

    asyncio.run(main())


def _not_the_kernel(name: str | None, kind: str, _parents: Any) -> bool:
    """The kernel's tables have types SQLAlchemy does not know; `messaging/schema` alone describes them."""
    return not (kind == "table" and str(name).startswith(KERNEL))
